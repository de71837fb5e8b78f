"""Networks that look at videos: recognisers, CLIP, attribute classifiers, and the folder they lie in."""
