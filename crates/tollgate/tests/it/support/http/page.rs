//! What a script can see of an HTML page: its address, its text and its forms.
//! Reads the plain forms of sign-in pages; knows nothing of scripts, styles or layout.

use super::Reply;
use url::Url;

/// A page as the visitor ended up on it, redirects followed.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    pub(crate) url: Url,
    pub(crate) reply: Reply,
}

impl Page {
    /// The page's only form.
    pub(crate) fn form(&self) -> Form {
        let mut forms = Form::all(&self.url, self.reply.text());
        assert_eq!(forms.len(), 1, "{} has {} forms:\n{}", self.url, forms.len(), self.reply.text());
        forms.remove(0)
    }
}

/// A form, and what would be sent if it were submitted now.
#[derive(Debug, Clone)]
pub(crate) struct Form {
    pub(crate) action: Url,
    pub(crate) method: String,
    pub(crate) fields: Vec<(String, String)>,
    buttons: Vec<Button>,
}

#[derive(Debug, Clone, Default)]
struct Button {
    text: String,
    name: Option<String>,
    value: String,
    action: Option<Url>,
}

impl Form {
    /// Types `value` into the field `name`.
    pub(crate) fn fill(mut self, name: &str, value: &str) -> Self {
        let field = self.fields.iter_mut().find(|(known, _)| known == name);
        let Some((_, old)) = field else { panic!("no field {name} among {:?}", self.fields) };
        value.clone_into(old);
        self
    }

    /// Chooses the button whose text contains `text`: its `formaction` and its own field count.
    pub(crate) fn press(mut self, text: &str) -> Self {
        let button = self.buttons.iter().find(|button| button.text.contains(text));
        let Some(button) = button.cloned() else { panic!("no button {text} among {:?}", self.buttons) };
        if let Some(action) = button.action {
            self.action = action;
        }
        self.fields.extend(button.name.map(|name| (name, button.value)));
        self
    }

    fn all(page: &Url, html: &str) -> Vec<Self> {
        let mut forms: Vec<Self> = Vec::new();
        let mut open = false;
        for (tag, text) in tags(html) {
            match (tag.name.as_str(), forms.last_mut()) {
                ("form", _) => {
                    open = true;
                    forms.push(Self {
                        action: page.join(tag.get("action").unwrap_or_default()).unwrap(),
                        method: tag.get("method").unwrap_or("get").to_lowercase(),
                        fields: Vec::new(),
                        buttons: Vec::new(),
                    });
                }
                ("/form", _) => open = false,
                ("input", Some(form)) if open => {
                    if let Some(name) = tag.get("name") {
                        form.fields.push((name.into(), tag.get("value").unwrap_or_default().into()));
                    }
                }
                ("button", Some(form)) if open => form.buttons.push(Button {
                    text: unescape(text.trim()),
                    name: tag.get("name").map(str::to_owned),
                    value: tag.get("value").unwrap_or_default().into(),
                    action: tag.get("formaction").map(|action| page.join(action).unwrap()),
                }),
                _ => {}
            }
        }
        forms
    }
}

struct Tag {
    name: String,
    attributes: Vec<(String, String)>,
}

impl Tag {
    fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Every tag with the text that follows it.
fn tags(html: &str) -> Vec<(Tag, &str)> {
    let mut found = Vec::new();
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        let (tag, after) = tag(&rest[start + 1..]);
        let text = &after[..after.find('<').unwrap_or(after.len())];
        found.push((tag, text));
        rest = after;
    }
    found
}

/// Reads one tag up to its `>`; a `>` inside quotes does not end it.
fn tag(source: &str) -> (Tag, &str) {
    let end_of_name = source.find(|c: char| c.is_whitespace() || c == '>').unwrap_or(source.len());
    let mut tag = Tag { name: source[..end_of_name].to_lowercase(), attributes: Vec::new() };
    let mut rest = source[end_of_name..].trim_start();
    loop {
        if let Some(after) = rest.strip_prefix('>') {
            return (tag, after);
        }
        let end = rest.find(|c: char| c.is_whitespace() || c == '=' || c == '>').unwrap_or(rest.len());
        if rest.is_empty() || end == 0 && !rest.starts_with('=') {
            return (tag, "");
        }
        let name = rest[..end].to_lowercase();
        rest = &rest[end..];
        let mut value = "";
        if let Some(after) = rest.strip_prefix('=') {
            let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''));
            let inner = if quote.is_some() { &after[1..] } else { after };
            let ends = |c: char| quote.map_or(c.is_whitespace() || c == '>', |quote| c == quote);
            let end = inner.find(ends).unwrap_or(inner.len());
            value = &inner[..end];
            rest = inner[end..].strip_prefix(['"', '\'']).unwrap_or(&inner[end..]);
        }
        tag.attributes.push((name, unescape(value)));
        rest = rest.trim_start();
    }
}

fn unescape(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        plain.push_str(before);
        let (entity, tail) = after.split_once(';').unwrap_or(("amp", after));
        let code = entity.strip_prefix('#').and_then(|number| match number.strip_prefix('x') {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => number.parse().ok(),
        });
        plain.push(match entity {
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            _ => code.and_then(char::from_u32).unwrap_or('&'),
        });
        rest = tail;
    }
    plain + rest
}

#[test]
fn a_form_is_read_with_its_fields_buttons_and_escapes() {
    let html = r#"<html><!-- a > b --><input name=outside><form method="POST" action='/device?a=1&amp;b=2'>
        <input type=hidden name=user_code value="A&quot;&#x42;&#39;>"><input name="empty" required>
        <button>Approve</button><button formaction="/device/deny" name="why" value="no">Deny &lt;it&gt;</button></form>"#;
    let page = Url::parse("http://127.0.0.1:1/x").unwrap();
    let form = Form::all(&page, html).remove(0);
    assert_eq!(form.method, "post");
    assert_eq!(form.action.as_str(), "http://127.0.0.1:1/device?a=1&b=2");
    let denied = form.fill("empty", "full").press("Deny <it>");
    assert_eq!(denied.action.path(), "/device/deny");
    let sent: Vec<_> = denied.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(sent, [("user_code", "A\"B'>"), ("empty", "full"), ("why", "no")]);
}
