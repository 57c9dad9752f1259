//! Which limits hold for a plugin.

use super::*;

fn wish(key: &str, value: u64) -> LimitWishes {
    let mut wishes = LimitWishes::default();
    assert!(wishes.set(key, value));
    wishes
}

fn resolved(policy: &LimitWishes, wishes: &LimitWishes) -> Result<ResolvedLimits, LimitError> {
    resolve(&LimitSettings::default(), (policy, &LimitWishes::default()), wishes, &Ceilings::default())
}

#[test]
fn a_silent_plugin_gets_the_defaults_of_the_sandbox() {
    let none = LimitWishes::default();
    let limits = resolved(&none, &none).unwrap();
    assert_eq!(limits.values.to_sandbox(), Limits::default());
    assert!(limits.info.values().all(|i| i.origin == Origin::Default));
    assert_eq!(limits.info.len(), KEYS.len());
}

#[test]
fn a_plugin_s_wish_comes_before_the_policy_and_that_before_the_default() {
    let limits = resolved(&wish("memory_mib", 200), &LimitWishes::default()).unwrap();
    assert_eq!(limits.info["memory_mib"], LimitInfo { value: 200, origin: Origin::Policy, ceiling: 512 });
    let limits = resolved(&wish("memory_mib", 200), &wish("memory_mib", 64)).unwrap();
    assert_eq!(limits.info["memory_mib"], LimitInfo { value: 64, origin: Origin::Plugin, ceiling: 512 });
    assert_eq!(limits.values.to_sandbox().memory_bytes, 64 << 20);
}

#[test]
fn a_wish_above_its_ceiling_is_refused_with_both_named() {
    let error = resolved(&LimitWishes::default(), &wish("memory_mib", 4_096)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "limits.memory_mib in plugin.toml asks for 4096, and the ceiling limits.max.memory_mib is 512: \
         ask for less, or raise the ceiling"
    );
    resolved(&LimitWishes::default(), &wish("memory_mib", 512)).unwrap();
}

#[test]
fn a_default_above_its_ceiling_is_an_error_of_the_settings() {
    check(&LimitSettings::default(), &Ceilings::default()).unwrap();
    let max = Ceilings { memory_mib: 64, ..Ceilings::default() };
    assert_eq!(
        check(&LimitSettings::default(), &max).unwrap_err().to_string(),
        "limits.default.memory_mib is 128, above limits.max.memory_mib, which is 64: lower the one or raise the other"
    );
    let zero = LimitSettings { handles: 0, ..LimitSettings::default() };
    assert_eq!(
        check(&zero, &Ceilings::default()).unwrap_err().to_string(),
        "limits.default.handles is 0; it must be 1 or more"
    );
}

#[test]
fn a_ceiling_of_one_plugin_refuses_what_asks_for_more_and_cuts_the_default() {
    let none = LimitWishes::default();
    let under = |policy: &LimitWishes, wishes: &LimitWishes| {
        let own = (policy, &wish("memory_mib", 64));
        resolve(&LimitSettings::default(), own, wishes, &Ceilings::default())
    };
    let error = under(&none, &wish("memory_mib", 65)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "limits.memory_mib in plugin.toml asks for 65, and the ceiling limits.max.memory_mib of the operator's policy is 64: \
         ask for less, or raise the ceiling"
    );
    let error = under(&wish("memory_mib", 65), &none).unwrap_err().to_string();
    assert!(error.starts_with("limits.memory_mib of the operator's policy asks for 65"), "{error}");
    let limits = under(&none, &wish("memory_mib", 64)).unwrap();
    assert_eq!(limits.info["memory_mib"], LimitInfo { value: 64, origin: Origin::Plugin, ceiling: 64 });
    let limits = under(&none, &none).unwrap();
    assert_eq!(limits.info["memory_mib"], LimitInfo { value: 64, origin: Origin::Policy, ceiling: 64 });
    assert_eq!(limits.info["cpu_seconds"].origin, Origin::Default);
    let high = (&none, &wish("memory_mib", 4_096));
    let limits = resolve(&LimitSettings::default(), high, &none, &Ceilings::default()).unwrap();
    assert_eq!(limits.info["memory_mib"].ceiling, 512, "it does not raise the ceiling of all plugins");
}
