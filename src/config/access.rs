//! Pure: who may come in, who is believed, and where may the relay go?

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;

use super::check::Check;
use super::file::SecuritySection;
use super::finding::Finding;
use super::scalar::RawUser;
use super::settings::{AdobeAuth, Key, ProxyMode, Security, ServerTls, TokenEntry, UserEntry};
use super::tokens::{self, Placed};

/// Longest user name, bytes: what is asked of a client with a longer one would be cut by ffmpeg.
const MAX_USER: usize = 96;
/// Least length of `auth_secret`, characters.
const SHORT_SECRET: usize = 16;

/// Judges the section. `tls` has been judged already.
pub(super) fn check(check: &mut Check<'_>, section: &SecuritySection, tls: Option<ServerTls>) -> Security {
    let auth_tokens = tokens(check, section);
    let users = users(check, section);
    authentication(check, section, auth_tokens.len(), users.len());
    Security {
        auth_enabled: section.auth_enabled,
        auth_tokens,
        users,
        adobe_auth: adobe_auth(check, section),
        auth_secret: auth_secret(check, section),
        allowed_clients: check.networks("security.allowed_clients", &section.allowed_clients),
        denied_clients: check.networks("security.denied_clients", &section.denied_clients),
        trusted_proxies: trusted_proxies(check, section),
        proxy_protocol: section.proxy_protocol,
        upstream_allowed_networks: upstream_allowed_networks(check, section),
        tls,
    }
}

fn tokens(check: &mut Check<'_>, section: &SecuritySection) -> Vec<TokenEntry> {
    let plain = section.auth_tokens.iter().cloned().enumerate();
    let placed = plain.map(|(index, token)| (check.at(&format!("security.auth_tokens[{index}]")), token.detailed()));
    let placed: Vec<Placed> = placed.chain(check.facts.more_tokens.clone()).collect();
    let judged = tokens::judge(placed);
    check.errors.extend(judged.errors);
    check.warnings.extend(judged.warnings);
    judged.entries
}

fn users(check: &mut Check<'_>, section: &SecuritySection) -> Vec<UserEntry> {
    let mut seen = BTreeSet::new();
    let mut users = Vec::with_capacity(section.users.len());
    for (index, raw) in section.users.iter().enumerate() {
        let at = check.at(&format!("security.users[{index}]"));
        if !seen.insert((raw.user.clone(), raw.password.expose().to_owned())) {
            check
                .warnings
                .push(Finding::new(at, "is a user with a password that stand further up already; what stands there counts"));
            continue;
        }
        check.errors.extend(errors_of(&at, raw));
        users.push(UserEntry { user: raw.user.clone(), entry: tokens::entry_of(raw.clone()) });
    }
    users
}

/// The user's name is said by nobody: with a slip of the pen it is the password.
fn errors_of(at: &str, raw: &RawUser) -> Vec<Finding> {
    let (user, password) = (&raw.user, raw.password.expose());
    let mut errors = Vec::new();
    let mut refuse = |wrong: bool, text: &str| {
        if wrong {
            errors.push(Finding::new(at, text));
        }
    };
    refuse(user.is_empty(), "`user` is empty");
    refuse(user.len() > MAX_USER, "`user` is longer than 96 bytes");
    refuse(
        user.chars().any(|c| c.is_control() || c == '&'),
        "`user` holds a control character or a '&', which encoders do not escape",
    );
    refuse(password.is_empty(), "`password` is empty");
    refuse(password.chars().any(char::is_control), "`password` holds a control character");
    refuse(password.len() > 512, "`password` is longer than 512 bytes");
    refuse(!password.is_empty() && raw.name.contains(password), "`name` repeats the password, and logs show names");
    refuse(
        raw.name.is_empty() && !password.is_empty() && user.contains(password),
        "`user` repeats the password, and logs show it",
    );
    errors.extend(tokens::scope_errors(at, &raw.name, &raw.actions, &raw.streams));
    errors
}

fn authentication(check: &mut Check<'_>, section: &SecuritySection, tokens: usize, users: usize) {
    let keys = ["security.auth_enabled", "security.auth_tokens", "security.auth_tokens_file", "security.users"];
    if !check.intact(&keys) {
        return;
    }
    let nobody = tokens == 0 && users == 0;
    if section.auth_enabled && nobody {
        check.error(
            "security.auth_enabled",
            "is true without any token; expected tokens in auth_tokens or auth_tokens_file, users, or false",
        );
    } else if !section.auth_enabled && !nobody {
        let given = if users == 0 { format!("{tokens} token(s)") } else { format!("{tokens} token(s) and {users} user(s)") };
        let text = format!("is not true, so the {given} given have no effect and everyone may publish and play");
        check.warn("security.auth_enabled", text);
    }
    if section.auth_enabled && users > 0 && section.adobe_auth == AdobeAuth::None {
        let text = "are never asked for their passwords while adobe_auth is \"none\"; expected \"adobe_auth\": \"all\", or the apps that they use";
        check.warn("security.users", text);
    }
    if !section.auth_enabled && section.adobe_auth != AdobeAuth::None {
        check.warn("security.adobe_auth", "has no effect without \"auth_enabled\": true");
    }
}

fn adobe_auth(check: &mut Check<'_>, section: &SecuritySection) -> AdobeAuth {
    if let AdobeAuth::Apps(apps) = &section.adobe_auth {
        for (index, error) in tokens::bad_patterns(apps) {
            check.error(&format!("security.adobe_auth[{index}]"), error);
        }
    }
    section.adobe_auth.clone()
}

fn auth_secret(check: &mut Check<'_>, section: &SecuritySection) -> Option<Key> {
    let secret = &section.auth_secret;
    let length = secret.expose().chars().count();
    if (1..SHORT_SECRET).contains(&length) {
        check.warn(
            "security.auth_secret",
            "is shorter than 16 characters: whoever guesses it can write what only the relay should",
        );
    }
    (length > 0).then(|| Key(secret.clone().into_secret()))
}

fn trusted_proxies(check: &mut Check<'_>, section: &SecuritySection) -> Vec<IpNetwork> {
    const KEY: &str = "security.trusted_proxies";
    let trusted = check.networks(KEY, &section.trusted_proxies);
    for everything in trusted.iter().filter(|network| network.prefix() == 0) {
        check.warn(KEY, format!("{everything} trusts everybody: any client may then claim any address, past every limit"));
    }
    if section.trusted_proxies.is_empty() && section.proxy_protocol == ProxyMode::Optional {
        let text = "has no effect without trusted_proxies: name your load balancers' networks there";
        check.warn("security.proxy_protocol", text);
    }
    trusted
}

fn upstream_allowed_networks(check: &mut Check<'_>, section: &SecuritySection) -> Vec<IpNetwork> {
    const KEY: &str = "security.upstream_allowed_networks";
    let networks = check.networks(KEY, &section.upstream_allowed_networks);
    for everything in networks.iter().filter(|network| network.prefix() == 0) {
        let text = format!(
            "{everything} turns the guard off: an upstream may then be any address, this machine's and its network's included"
        );
        check.warn(KEY, text);
    }
    networks
}
