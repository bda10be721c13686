//! Bearers: HS256 JSON Web Tokens (RFC 7519) that the gateway issues and verifies by itself.
