"""Reading a ConsisID checkpoint: its files, its weights by name, its licences, the example it is run on."""
