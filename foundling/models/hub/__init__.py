from foundling.models.hub._load import find_model_dir, load_config, load_model
from foundling.models.hub._save import format_for, save_model

__all__ = ["find_model_dir", "format_for", "load_config", "load_model", "save_model"]
