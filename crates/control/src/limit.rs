//! Rate-limit counters, shared by replicas.
