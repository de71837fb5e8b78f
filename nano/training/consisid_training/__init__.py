"""How the nano checkpoint was trained: one module a stage, each resumable at any step."""
