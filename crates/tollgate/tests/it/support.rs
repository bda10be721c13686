//! What the tests run the gateway against: real databases, a real OpenID provider, the stock client, a real
//! browser and scripted upstreams. Each fixture starts what it needs and takes it down with the test.

#[expect(dead_code, reason = "waits for the tests of the whole gateway")]
pub(crate) mod browser;
#[expect(dead_code, reason = "waits for the tests of the whole gateway")]
pub(crate) mod client;
pub(crate) mod database;
pub(crate) mod gateway;
pub(crate) mod http;
pub(crate) mod idp;
pub(crate) mod upstream;
