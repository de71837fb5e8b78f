"""How faithful videos are: to the person, to the prompt, to a reference. Nothing heavy is imported before it runs."""
