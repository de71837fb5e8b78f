"""Writing a bundle, module by module and resumable, with its manifest. Uses every other folder of the exporter."""
