"""archsearch: neural architecture search and surgery for video networks."""

__version__ = "0.1.0"
