//! What the tests run the gateway against: real databases, a real OpenID provider, the stock client, a real
//! browser and scripted upstreams. Each fixture starts what it needs and takes it down with the test.

pub(crate) mod browser;
pub(crate) mod client;
pub(crate) mod cloud;
pub(crate) mod database;
pub(crate) mod gateway;
pub(crate) mod http;
pub(crate) mod idp;
pub(crate) mod raw;
pub(crate) mod time;
pub(crate) mod upstream;
