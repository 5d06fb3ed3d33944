"""blurkit learns motion blur, removes it, applies it, moves it between photos, and measures it."""

__version__ = "0.1.0"
