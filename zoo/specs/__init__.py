"""What is known of models without building them: pure data, no framework."""
