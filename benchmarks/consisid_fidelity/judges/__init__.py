"""Networks that judge videos (face recognisers, CLIP, attribute classifiers) and the folder that holds their files."""
