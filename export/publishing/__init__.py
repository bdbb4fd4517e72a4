"""Publishing: push runs and artifacts to the Hugging Face hub with a model card, and fetch artifacts from it."""
