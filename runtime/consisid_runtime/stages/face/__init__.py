"""The face stage: decodes a photograph, finds and aligns one face in it, and reads the identity from it."""
