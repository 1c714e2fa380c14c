"""A finished adapter: `adapter`, `model_card`, `loading_code`."""
