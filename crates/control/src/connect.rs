//! Outbound connections: resolve, check the address, pin it, connect.
