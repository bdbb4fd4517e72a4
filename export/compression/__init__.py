"""Machinery of compression: pipeline, masks, channel groups, folding and fine-tuning."""
