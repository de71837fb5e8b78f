"""The benchmark suites: what each measures, with its variants and cases."""
