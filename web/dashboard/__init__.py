"""The section with distributions and evolutions: its pages, its API and its exports."""
