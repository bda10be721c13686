//! Clouds as far as the gateway meets them: answers for a scripted [`super::upstream::Upstream`] in the clouds' own formats,
//! with signatures checked and checksums made as the clouds do it.

pub(crate) mod aws;
pub(crate) mod bedrock;
