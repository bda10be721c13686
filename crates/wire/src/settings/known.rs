//! The keys of a Claude Code settings document, as the public settings and hooks references list them
//! (code.claude.com/docs/en/settings and /hooks, read 2026-11-22), with the types of the published JSON schema
//! (json.schemastore.org/claude-code-settings.json, 2026-08-07) where it has the key.

use serde_json::Value;

/// The type a value must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// `true` or `false`.
    Bool,
    /// A number.
    Number,
    /// A string.
    Text,
    /// A list of strings.
    Texts,
    /// A string or a list of strings.
    TextOrTexts,
    /// A list.
    List,
    /// An object.
    Object,
    /// Several types, or one the references do not state.
    Anything,
}

impl Expected {
    /// Whether a value has the type.
    #[must_use]
    pub fn accepts(self, value: &Value) -> bool {
        match self {
            Self::Bool => value.is_boolean(),
            Self::Number => value.is_number(),
            Self::Text => value.is_string(),
            Self::Texts => value.as_array().is_some_and(|values| values.iter().all(Value::is_string)),
            Self::TextOrTexts => value.is_string() || Self::Texts.accepts(value),
            Self::List => value.is_array(),
            Self::Object => value.is_object(),
            Self::Anything => true,
        }
    }

    /// The type in words, to follow "must be".
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Bool => "true or false",
            Self::Number => "a number",
            Self::Text => "a string",
            Self::Texts => "a list of strings",
            Self::TextOrTexts => "a string or a list of strings",
            Self::List => "a list",
            Self::Object => "an object",
            Self::Anything => "any value",
        }
    }
}

/// How a policy's value meets the base's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergeKind {
    /// The policy's value stands alone.
    Replace,
    /// The base's entries, then the policy's new ones.
    Union,
    /// Member by member.
    Shallow,
    /// Member by member, `deny` and `ask` united.
    Permissions,
    /// Event by event, each united.
    Hooks,
}

/// A top-level key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownKey {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub expected: Expected,
    /// How a policy's value meets the base's.
    pub merge: MergeKind,
}

pub(super) fn find(key: &str) -> Option<&'static KnownKey> {
    KNOWN_KEYS.iter().find(|known| known.name == key)
}

/// Unknown keys are replaced whole.
pub(super) fn merge_of(key: &str) -> MergeKind {
    find(key).map_or(MergeKind::Replace, |known| known.merge)
}

const fn key(name: &'static str, expected: Expected) -> KnownKey {
    KnownKey { name, expected, merge: MergeKind::Replace }
}

const fn merged(name: &'static str, expected: Expected, merge: MergeKind) -> KnownKey {
    KnownKey { name, expected, merge }
}

/// Keys inside `permissions`.
pub(super) const PERMISSION_KEYS: &[(&str, Expected)] = &[
    ("allow", Expected::Texts),
    ("deny", Expected::Texts),
    ("ask", Expected::Texts),
    ("additionalDirectories", Expected::Texts),
    ("defaultMode", Expected::Text),
    ("disableAutoMode", Expected::Text),
    ("disableBypassPermissionsMode", Expected::Text),
];

/// Events a hook can be set on.
pub const HOOK_EVENTS: &[&str] = &[
    "ConfigChange",
    "CwdChanged",
    "DirectoryAdded",
    "Elicitation",
    "ElicitationResult",
    "FileChanged",
    "InstructionsLoaded",
    "MessageDisplay",
    "Notification",
    "PermissionDenied",
    "PermissionRequest",
    "PostCompact",
    "PostModelSwitch",
    "PostToolBatch",
    "PostToolUse",
    "PostToolUseFailure",
    "PreCompact",
    "PreModelSwitch",
    "PreToolUse",
    "SessionEnd",
    "SessionStart",
    "Setup",
    "Stop",
    "StopFailure",
    "SubagentStart",
    "SubagentStop",
    "TaskCompleted",
    "TaskCreated",
    "TeammateIdle",
    "UserPromptExpansion",
    "UserPromptSubmit",
    "WorktreeCreate",
    "WorktreeRemove",
];

/// Every top-level key of the references.
pub const KNOWN_KEYS: &[KnownKey] = &[
    key("$schema", Expected::Text),
    key("advisorModel", Expected::Text),
    key("agent", Expected::Text),
    key("agentPushNotifEnabled", Expected::Bool),
    key("allowAllClaudeAiMcps", Expected::Bool),
    key("allowClaudeInChromeWithManagedMcp", Expected::Bool),
    key("allowedChannelPlugins", Expected::List),
    key("allowedHttpHookUrls", Expected::Texts),
    key("allowedMcpServers", Expected::List),
    key("allowedProviders", Expected::Anything),
    key("allowManagedHooksOnly", Expected::Bool),
    key("allowManagedMcpServersOnly", Expected::Bool),
    key("allowManagedPermissionRulesOnly", Expected::Bool),
    key("alwaysThinkingEnabled", Expected::Bool),
    key("apiKeyHelper", Expected::Text),
    key("askUserQuestionTimeout", Expected::Text),
    key("attribution", Expected::Object),
    key("autoCompactEnabled", Expected::Bool),
    key("autoConnectIde", Expected::Bool),
    key("autoInstallIdeExtension", Expected::Bool),
    key("autoMemoryDirectory", Expected::Text),
    key("autoMemoryEnabled", Expected::Bool),
    key("autoMode", Expected::Object),
    key("autoScrollEnabled", Expected::Bool),
    key("autoUpdatesChannel", Expected::Text),
    key("availableModels", Expected::Texts),
    key("awaySummaryEnabled", Expected::Bool),
    key("awsAuthRefresh", Expected::Text),
    key("awsCredentialExport", Expected::Text),
    key("axScreenReader", Expected::Bool),
    merged("blockedMarketplaces", Expected::List, MergeKind::Union),
    key("browserExternalPageTools", Expected::Text),
    key("channelsEnabled", Expected::Bool),
    key("claudeMd", Expected::Text),
    key("claudeMdExcludes", Expected::Texts),
    key("cleanupPeriodDays", Expected::Number),
    key("companyAnnouncements", Expected::Texts),
    key("crossSessionInbound", Expected::Text),
    key("defaultShell", Expected::Text),
    merged("deniedMcpServers", Expected::List, MergeKind::Union),
    key("dialogExpiry", Expected::Anything),
    key("diffTool", Expected::Text),
    key("disableAgentView", Expected::Bool),
    key("disableAllHooks", Expected::Bool),
    key("disableArtifact", Expected::Bool),
    key("disableAutoMode", Expected::Text),
    key("disableBrowserExternalNavigation", Expected::Bool),
    key("disableBundledSkills", Expected::Bool),
    key("disableClaudeAiConnectors", Expected::Bool),
    key("disableCommandPluginSources", Expected::Bool),
    key("disableDeepLinkRegistration", Expected::Text),
    key("disableDesktopLocalSessions", Expected::Bool),
    merged("disabledMcpjsonServers", Expected::Texts, MergeKind::Union),
    key("disableMobileSimulatorTools", Expected::Bool),
    key("disableRemoteControl", Expected::Bool),
    key("disableSideloadFlags", Expected::Bool),
    key("disableSkillShellExecution", Expected::Bool),
    key("disableWorkflows", Expected::Bool),
    key("editorMode", Expected::Text),
    key("effortLevel", Expected::Text),
    key("emojiCompletionEnabled", Expected::Bool),
    key("enableAllProjectMcpServers", Expected::Bool),
    key("enableArtifact", Expected::Bool),
    key("enabledMcpjsonServers", Expected::Texts),
    key("enabledPlugins", Expected::Object),
    key("enableWorkflows", Expected::Bool),
    key("enforceAvailableModels", Expected::Bool),
    merged("env", Expected::Object, MergeKind::Shallow),
    key("externalEditorContext", Expected::Bool),
    key("extraKnownMarketplaces", Expected::Object),
    key("fallbackModel", Expected::Texts),
    key("fastMode", Expected::Bool),
    key("fastModePerSessionOptIn", Expected::Bool),
    key("feedbackDrafts", Expected::Anything),
    key("feedbackSurveyRate", Expected::Number),
    key("fileCheckpointingEnabled", Expected::Bool),
    key("fileSuggestion", Expected::Object),
    key("footerLinksRegexes", Expected::List),
    key("forceLoginGatewayUrl", Expected::Text),
    key("forceLoginMethod", Expected::Text),
    key("forceLoginOrgUUID", Expected::TextOrTexts),
    key("forceRemoteSettingsRefresh", Expected::Bool),
    key("gatewayInternalNetworks", Expected::Texts),
    key("gcpAuthRefresh", Expected::Text),
    merged("hooks", Expected::Object, MergeKind::Hooks),
    key("httpHookAllowedEnvVars", Expected::Texts),
    key("includeCoAuthoredBy", Expected::Bool),
    key("includeGitInstructions", Expected::Bool),
    key("inputNeededNotifEnabled", Expected::Bool),
    key("isolatePeerMachines", Expected::Bool),
    key("keybindingFlavor", Expected::Text),
    key("language", Expected::Text),
    key("managedMcpServers", Expected::Anything),
    key("managedSourcesBehavior", Expected::Text),
    key("minimumVersion", Expected::Text),
    key("model", Expected::Text),
    merged("modelOverrides", Expected::Object, MergeKind::Shallow),
    key("modelPicker", Expected::Object),
    key("modelPricing", Expected::Object),
    key("otelHeadersHelper", Expected::Text),
    key("outputStyle", Expected::Text),
    key("parentSettingsBehavior", Expected::Text),
    key("permissionExplainerEnabled", Expected::Bool),
    merged("permissions", Expected::Object, MergeKind::Permissions),
    key("plansDirectory", Expected::Text),
    key("pluginConfigs", Expected::Object),
    key("pluginSuggestionMarketplaces", Expected::Texts),
    key("pluginTrustMessage", Expected::Text),
    key("policyHelper", Expected::Object),
    key("preferredNotifChannel", Expected::Text),
    key("prefersReducedMotion", Expected::Bool),
    key("processWrapper", Expected::Text),
    key("promptCacheTtl", Expected::Text),
    key("promptSuggestionEnabled", Expected::Bool),
    key("prUrlTemplate", Expected::Text),
    key("remote", Expected::Object),
    key("remoteControlAtStartup", Expected::Bool),
    key("requireCoworkFullVmSandbox", Expected::Bool),
    key("requiredMaximumVersion", Expected::Text),
    key("requiredMinimumVersion", Expected::Text),
    key("respectGitignore", Expected::Bool),
    key("respondToBashCommands", Expected::Bool),
    key("sandbox", Expected::Object),
    key("showClearContextOnPlanAccept", Expected::Bool),
    key("showThinkingSummaries", Expected::Bool),
    key("showTurnDuration", Expected::Bool),
    key("skillListingBudgetFraction", Expected::Number),
    key("skillListingMaxDescChars", Expected::Number),
    merged("skillOverrides", Expected::Object, MergeKind::Shallow),
    key("skipAutoPermissionPrompt", Expected::Bool),
    key("skipDangerousModePermissionPrompt", Expected::Bool),
    key("skippedMarketplaces", Expected::Texts),
    key("skippedPlugins", Expected::Texts),
    key("skipWebFetchPreflight", Expected::Bool),
    key("spellcheck", Expected::Anything),
    key("spinnerTipsEnabled", Expected::Bool),
    key("spinnerTipsOverride", Expected::Object),
    key("spinnerVerbs", Expected::Object),
    key("sshConfigs", Expected::List),
    key("sshHostAllowlist", Expected::Texts),
    key("statusLine", Expected::Object),
    key("strictKnownMarketplaces", Expected::List),
    key("strictPluginOnlyCustomization", Expected::Anything),
    key("subagentPromptCacheTtl", Expected::Text),
    key("subagentStatusLine", Expected::Object),
    key("switchModelsOnFlag", Expected::Bool),
    key("syncClaudeAiSkills", Expected::Bool),
    key("syntaxHighlightingDisabled", Expected::Bool),
    key("teammateDefaultModel", Expected::Anything),
    key("teammateMode", Expected::Text),
    key("terminalProgressBarEnabled", Expected::Bool),
    key("terminalTitleFromRename", Expected::Bool),
    key("theme", Expected::Text),
    key("tui", Expected::Text),
    key("ultracode", Expected::Bool),
    key("useAutoModeDuringPlan", Expected::Bool),
    key("verbose", Expected::Bool),
    key("viewMode", Expected::Text),
    key("vimInsertModeRemaps", Expected::Object),
    key("voice", Expected::Object),
    key("voiceEnabled", Expected::Bool),
    key("wheelScrollAccelerationEnabled", Expected::Bool),
    key("workflowKeywordTriggerEnabled", Expected::Bool),
    key("workflowSizeGuideline", Expected::Text),
    key("worktree", Expected::Object),
    key("wslInheritsWindowsSettings", Expected::Bool),
];
