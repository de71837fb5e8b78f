"""Files of users and of ours: reading within bounds, writing all or nothing. Knows nothing of videos or bundles."""
