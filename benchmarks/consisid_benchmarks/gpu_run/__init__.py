"""`make gpu`: measures ConsisID-preview's size on a GPU with weights made there, part by part, within a time limit."""
