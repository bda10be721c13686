//! How the gateway ends, and when it refuses to begin: as an operator sees it, by signals, exit statuses and words.
