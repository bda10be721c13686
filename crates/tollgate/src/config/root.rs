//! The file as a whole: its sections, read in their order, and the keys that stand by themselves.

use std::path::Path;
use std::time::Duration;

use control::connect;
use control::identity::SessionConfig;
use control::policy;
use control::spend::Pricing;
use wire::catalog::Catalog;

use super::problem::Report;
use super::read::{Field, Mapping};
use super::reference::{Section, key, later};
use super::telemetry::Telemetry;
use super::tree::Node;
use super::{
    Config, Environment, access, admin, listen, load_test, managed, metrics, models, oidc, session, store, telemetry,
    upstreams,
};

pub(super) const SECTION: Section = Section {
    path: "",
    about: "`listen`, `oidc`, `session` and `upstreams` are required.",
    keys: &[
        key("listen", "mapping", "required", "Where the gateway serves."),
        key("oidc", "mapping", "required", "The identity provider."),
        key("session", "mapping", "required", "The bearers it issues."),
        key("store", "mapping", "SQLite", "The database."),
        key("upstreams", "list, not empty", "required", "Where inference goes."),
        key("models", "list", "[]", "Model ids of your own."),
        key(
            "auto_include_builtin_models",
            "boolean",
            "true",
            "Whether the built-in catalogue can be used beside `models`.",
        ),
        key("managed", "mapping", "", "Policies."),
        key("admin", "mapping", "", "Spend limits and the admin API."),
        key("enforcement", "mapping", "", "How spend limits are enforced."),
        key("pricing", "mapping", "", "Prices other than list prices."),
        key("telemetry", "mapping", "", "Where clients' telemetry goes."),
        key("metrics", "mapping", "", "Figures for Prometheus."),
        key("access_control", "mapping", "", "Client addresses that get in."),
        key("limits", "mapping", "", "Largest requests."),
        key("rate_limits", "mapping", "", "How often one address, or one session, may ask."),
        key("timeouts", "mapping", "", "Time limits of upstream requests."),
        key("load_test_mode", "mapping", "", "Canned answers, for tests under load."),
        key("login_notice", "text of 1 to 500 characters", "", "Shown by clients when a sign-in begins."),
    ],
    later: &[
        later("cri", "requests from a product that Anthropic runs"),
        later("workload_identity", "sign-in of machines"),
        later("alerts", "webhooks at spend thresholds"),
        later("reload", "a new configuration without a restart"),
        later("log", "another place and form of logs"),
        later("shutdown", "a time as a lame duck before the end"),
    ],
};

const NOTICE_CHARACTERS: usize = 500;

/// Reads every section. `None` when a problem was reported, and sometimes `Some` as well: the report decides.
pub(super) fn read(tree: &Node, folder: &Path, environment: &Environment, report: &Report) -> Option<Config> {
    let root = Mapping::root(tree, &SECTION, report)?;
    let connect = connect::Config { allow_loopback: environment.allow_loopback(), proxy: environment.proxy(report) };
    let allow_loopback = connect.allow_loopback;

    let listen =
        root.required("listen", "write where to serve, such as listen: { public_url: https://... }", |field| {
            listen::read(&field.mapping(&listen::SECTION)?)
        });
    let oidc = root.required("oidc", "write issuer, client_id and client_secret of your identity provider", |field| {
        if field.is_list() {
            field.refuse(format!("{}; write one as a mapping", oidc::LIST.refusal()));
            return None;
        }
        oidc::read(&field.mapping(&oidc::SECTION)?, &connect, environment)
    });
    let session = root.required("session", "write session: { jwt_secret: ${GATEWAY_JWT_SECRET} }", |field| {
        session::read(&field.mapping(&session::SECTION)?)
    });
    let store = match root.get("store") {
        Some(field) => field.mapping(&store::SECTION).and_then(|store| store::read(Some(&store), folder)),
        None => store::read(None, folder),
    };
    let upstreams = read_upstreams(&root, environment);
    let models = models::read(root.get("models"), upstreams.as_deref());
    let include_builtin = read_include_builtin(&root, models.as_deref().is_some_and(<[_]>::is_empty));
    let managed = managed::read(root.get("managed"), folder);
    let admin = admin::read(root.get("admin"), root.get("enforcement"));
    let has_user = root.get("admin").is_some() || root.get("managed").is_some();
    let catalog = models.clone().zip(include_builtin).and_then(|(models, all)| Catalog::new(models, all).ok());
    if let (Some(models), Some(upstreams), Some(catalog)) = (&models, &upstreams, &catalog) {
        models::warn_of_dead_ends(&root, models, upstreams, catalog);
        upstreams::warn_short_context(root.get("upstreams"), upstreams, catalog);
    }
    let priced = admin::Priced { upstreams: upstreams.as_deref(), catalog: catalog.as_ref() };
    let pricing = admin::read_pricing(root.get("pricing"), priced, has_user);
    let public_url = listen.as_ref().and_then(|listen| listen.public_url.as_deref());
    let telemetry = root.or("telemetry", Telemetry::default(), |field| {
        // Without a readable listen section nobody knows whether the origin is there.
        telemetry::read(field, public_url.is_some() || listen.is_none(), allow_loopback)
    });
    let access_control = root.or("access_control", access::AccessControl::default(), access::read_access_control);
    let limits = root.or("limits", access::Limits::default(), access::read_limits);
    let rate_limits = root.or("rate_limits", access::RateLimits::default(), access::read_rate_limits);
    let load_test = root.or("load_test_mode", None, load_test::read);
    let metrics = root.maybe("metrics", metrics::read);
    let login_notice = root.maybe("login_notice", read_notice);

    let (listen, oidc, session, telemetry) = (listen?, oidc?, session?, telemetry?);
    let (store, readiness_grace) = store?;
    let (admin, billing_group_tag) = admin?;
    let (pricing, refuse_unknown) = pricing?;
    let mut models = models?;
    let overrides = pricing.as_ref().map_or(&[][..], |pricing| &pricing.overrides);
    if admin.is_some() || refuse_unknown {
        models::check_prices(root.get("models"), &mut models, overrides, refuse_unknown);
    }
    let issuer = listen.origin(listen.port);
    let managed = managed?;
    let policy = policy::Config {
        policies: managed.policies,
        kind: managed.kind,
        telemetry_env: telemetry.environment(listen.public_url.as_deref()),
        model_pricing: pricing.as_ref().map(admin::model_pricing),
        desktop: policy::DesktopConfig {
            origin: issuer.clone(),
            telemetry: telemetry.attributes(listen.public_url.as_deref()),
        },
    };
    Some(Config {
        listen,
        access_control: access_control?,
        limits: limits?,
        rate_limits: rate_limits?,
        load_test: load_test?,
        oidc: oidc.relying_party,
        form_action_origins: oidc.form_action_origins,
        session: SessionConfig {
            secrets: session.secrets,
            ttl: session.ttl,
            issuer,
            billing_group_tag,
            lasting: session.lasting,
        },
        cut_streams: session.cut_streams,
        store,
        readiness_grace,
        admin,
        pricing: pricing.unwrap_or_else(Pricing::default),
        upstreams: upstreams?,
        models,
        auto_include_builtin_models: include_builtin?,
        policy,
        telemetry: telemetry.destinations,
        metrics: metrics?,
        login_notice: login_notice?,
        drain_timeout: environment.drain_timeout(report),
        log_level: environment.log_level(report),
        connect,
    })
}

fn read_upstreams(root: &Mapping<'_>, environment: &Environment) -> Option<Vec<proxy::upstream::Config>> {
    let upstreams = root.get("upstreams");
    if upstreams.is_none() {
        root.missing(
            "upstreams",
            "write a list with at least one, such as { provider: anthropic, auth: { api_key: ... } }",
        );
    }
    upstreams::read(upstreams, root.get("timeouts"), environment)
}

fn read_include_builtin(root: &Mapping<'_>, no_models: bool) -> Option<bool> {
    root.or("auto_include_builtin_models", true, |field| {
        let include = field.flag()?;
        if !include && no_models {
            field.warn("false without any models of your own: no model can be used");
        }
        Some(include)
    })
}

fn read_notice(field: &Field<'_>) -> Option<String> {
    let notice = field.text()?.trim();
    if notice.chars().count() > NOTICE_CHARACTERS {
        field.refuse("must be 1 to 500 characters long");
        return None;
    }
    // One line, as clients print it.
    Some(notice.split(['\r', '\n']).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" "))
}

/// How long open requests may take to finish, unless the environment says otherwise.
pub(super) const DRAIN: Duration = Duration::from_secs(25);
