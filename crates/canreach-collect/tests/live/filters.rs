//! What packet filters are loaded.
