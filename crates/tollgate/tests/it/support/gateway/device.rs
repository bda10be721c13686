//! A device that signs in (RFC 8628): it asks for a code, shows it, and polls.

use serde_json::Value;

use super::{Caller, TestGateway};
use crate::support::http::{Page, Visitor};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// A sign-in that was begun.
pub(crate) struct Device {
    caller: Caller,
    /// The gateway's answer to the device.
    pub(crate) begun: Value,
}

impl Device {
    /// Asks for a code.
    pub(crate) async fn begin(gateway: &TestGateway) -> Self {
        Self::begin_as(gateway.anyone(), &[("surface", "claude-code")]).await
    }

    /// Asks for a code with these fields.
    pub(crate) async fn begin_as(caller: Caller, fields: &[(&str, &str)]) -> Self {
        let reply = caller.form("/oauth/device_authorization", fields).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        Self { caller, begun: reply.json() }
    }

    pub(crate) fn user_code(&self) -> &str {
        self.begun["user_code"].as_str().unwrap()
    }

    /// What a person opens in a browser.
    pub(crate) fn link(&self) -> &str {
        self.begun["verification_uri_complete"].as_str().unwrap()
    }

    /// A person approves it in a browser of their own and signs in as `account`.
    pub(crate) async fn approve(&self, account: &str) -> Page {
        Visitor::new().sign_in(self.link(), account).await
    }

    /// Asks whether it is approved.
    pub(crate) async fn poll(&self) -> (u16, Value) {
        let code = self.begun["device_code"].as_str().unwrap();
        let reply = self.caller.form("/oauth/token", &[("grant_type", GRANT), ("device_code", code)]).await;
        assert_eq!((reply.header("cache-control"), reply.header("pragma")), (Some("no-store"), Some("no-cache")));
        (reply.status.as_u16(), reply.json())
    }
}

impl TestGateway {
    /// The tokens of somebody who signs in the whole way.
    pub(crate) async fn sign_in(&self, account: &str) -> Value {
        let device = Device::begin(self).await;
        let page = device.approve(account).await;
        assert_eq!(page.reply.status, 200, "{}", page.reply.text());
        let (status, tokens) = device.poll().await;
        assert_eq!(status, 200, "{tokens}");
        tokens
    }

    /// Somebody with the bearer of these tokens.
    pub(crate) fn with_tokens(&self, tokens: &Value) -> Caller {
        self.anyone().bearer(tokens["access_token"].as_str().unwrap())
    }

    /// Asks for new tokens.
    pub(crate) async fn refresh(&self, tokens: &Value) -> (u16, Value) {
        let token = tokens["refresh_token"].as_str().unwrap();
        let fields = [("grant_type", "refresh_token"), ("refresh_token", token)];
        let reply = self.anyone().form("/oauth/token", &fields).await;
        (reply.status.as_u16(), reply.json())
    }
}
