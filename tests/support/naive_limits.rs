//! Limiters that keep a list of times and count it with every call: what the engine is compared
//! with. Each may be made with one fault, which the conformance suites must see.

use cloakroom::adaptive_rate_limit::{
    AdaptiveConfig, AdaptiveRateLimitStatus, AdaptiveRateLimitStore, Priority,
};
use cloakroom::limits::MAX_KEY_LEN;
use cloakroom::rate_limit::{RateLimitConfig, RateLimitStatus, RateLimitStore};
use cloakroom::{Clock, Error, ManualClock, Pending, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a driver does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// `wait_time` is until the oldest counted request leaves.
    WaitsForTheOldest,
    /// `record` computes shares.
    RecordComputes,
    /// `recent_user_activity` is as old as the shares.
    OldActivity,
    /// What is left is counted when the shares are computed.
    OldCounts,
    /// Questions compute shares and do not keep them.
    AskingKeepsNothing,
    /// An acquire that refuses does not keep the shares that it computed.
    RefusalKeepsNothing,
    /// After sustained inactivity no user is ever admitted again.
    UsersNeverReturn,
    /// After sustained inactivity users are admitted without end.
    UsersReturnInCrowds,
    /// A paused background is told to wait for the oldest request.
    PausedWaitsForTheOldest,
    /// Shares outlive a reset.
    ResetKeepsShares,
    /// What left the window is counted again under a longer one.
    NeverForgets,
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn check_key(what: &'static str, key: &str) -> Result<()> {
    if key.len() > MAX_KEY_LEN {
        let (size, limit) = (key.len() as u64, MAX_KEY_LEN as u64);
        return Err(Error::TooLarge { what, size, limit });
    }
    Ok(())
}

/// How many of `times` count at `now_ms`.
fn within(times: &[u64], now_ms: u64, window_ms: u64) -> u64 {
    let counted = |time: &&u64| now_ms.checked_sub(window_ms).is_none_or(|gone| **time > gone);
    times.iter().filter(counted).count() as u64
}

/// When so many of `times` have left that fewer than `most` count: the time of the one that must.
fn leaves_at(times: &[u64], most: u64, window_ms: u64, fault: Fault) -> u64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = if fault == Fault::WaitsForTheOldest { 0 } else { times.len() - most as usize };
    times[at].saturating_add(window_ms)
}

/// What plain and adaptive limiters have in common.
#[derive(Debug, Default)]
struct Shared {
    configs: BTreeMap<String, RateLimitConfig>,
    cooldowns: BTreeMap<String, u64>,
}

impl Shared {
    fn set_config(&mut self, resource: &str, config: RateLimitConfig) -> Result<()> {
        check_key("the resource", resource)?;
        if config.window.is_zero() {
            return Err(Error::InvalidConfig("a window of zero".into()));
        }
        self.configs.insert(resource.into(), config);
        Ok(())
    }

    fn set_cooldown(&mut self, origin: &str, until_ms: u64) -> Result<()> {
        check_key("the origin", origin)?;
        self.cooldowns.insert(origin.into(), until_ms);
        Ok(())
    }

    fn cooldown(&self, origin: &str, now_ms: u64) -> Result<Option<u64>> {
        check_key("the origin", origin)?;
        Ok(self.cooldowns.get(origin).copied().filter(|until_ms| now_ms < *until_ms))
    }

    fn clear_cooldown(&mut self, origin: &str) -> Result<()> {
        check_key("the origin", origin)?;
        self.cooldowns.remove(origin);
        Ok(())
    }
}

/// The times of requests, and how long they are kept.
#[derive(Debug, Clone, Default)]
struct Times {
    ms: Vec<u64>,
}

impl Times {
    /// Adds a request; time never goes back for a resource.
    fn add(&mut self, now_ms: u64) {
        self.ms.push(now_ms.max(self.ms.last().copied().unwrap_or(0)));
    }

    /// The time as the resource sees it.
    fn now(&self, now_ms: u64) -> u64 {
        now_ms.max(self.ms.last().copied().unwrap_or(0))
    }

    fn keep(&mut self, now_ms: u64, keep_ms: u64) {
        let now_ms = self.now(now_ms);
        self.ms.retain(|time| now_ms.checked_sub(keep_ms).is_none_or(|gone| *time > gone));
    }

    fn count(&self, now_ms: u64, window_ms: u64) -> u64 {
        within(&self.ms, self.now(now_ms), window_ms)
    }
}

/// A plain limiter over lists of times.
pub struct NaiveLimiter {
    config: RateLimitConfig,
    clock: Arc<ManualClock>,
    fault: Fault,
    state: Mutex<Plain>,
}

#[derive(Default)]
struct Plain {
    shared: Shared,
    resources: BTreeMap<String, (Times, u64)>,
}

impl NaiveLimiter {
    pub fn new(config: RateLimitConfig, clock: Arc<ManualClock>, fault: Fault) -> Self {
        Self { config, clock, fault, state: Mutex::default() }
    }

    /// Runs `call` on the requests of a resource that are still kept.
    fn on<R>(
        &self,
        resource: &str,
        call: impl FnOnce(&mut Times, RateLimitConfig, u64) -> R,
    ) -> Pending<R> {
        if let Err(error) = check_key("the resource", resource) {
            return Pending::ready(Err(error));
        }
        let (mut state, now_ms) = (self.state.lock().unwrap(), self.clock.now_ms());
        let config = state.shared.configs.get(resource).copied().unwrap_or(self.config);
        let (times, keep_ms) = state.resources.entry(resource.into()).or_default();
        if self.fault != Fault::NeverForgets {
            times.keep(now_ms, *keep_ms);
        }
        let window_ms = ms(config.window).max(ms(self.config.window));
        *keep_ms = if times.ms.is_empty() { window_ms } else { window_ms.max(*keep_ms) };
        Pending::ready(Ok(call(times, config, now_ms)))
    }

    fn shared<R>(&self, call: impl FnOnce(&mut Shared, u64) -> Result<R>) -> Pending<R> {
        let now_ms = self.clock.now_ms();
        Pending::ready(call(&mut self.state.lock().unwrap().shared, now_ms))
    }
}

impl RateLimitStore for NaiveLimiter {
    fn acquire(&self, resource: &str) -> Pending<bool> {
        self.on(resource, |times, config, now_ms| {
            let admitted = times.count(now_ms, ms(config.window)) < config.limit;
            if admitted {
                times.add(now_ms);
            }
            admitted
        })
    }

    fn can_proceed(&self, resource: &str) -> Pending<bool> {
        self.on(resource, |times, config, now_ms| {
            times.count(now_ms, ms(config.window)) < config.limit
        })
    }

    fn record(&self, resource: &str) -> Pending<()> {
        self.on(resource, |times, _, now_ms| times.add(now_ms))
    }

    fn status(&self, resource: &str) -> Pending<RateLimitStatus> {
        self.on(resource, |times, config, now_ms| {
            let counted = times.count(now_ms, ms(config.window));
            let reset_time = now_ms.saturating_add(ms(config.window));
            RateLimitStatus::new(config.limit, config.limit.saturating_sub(counted), reset_time)
        })
    }

    fn reset(&self, resource: &str) -> Pending<()> {
        self.on(resource, |times, _, _| times.ms.clear())
    }

    fn wait_time(&self, resource: &str) -> Pending<Duration> {
        let fault = self.fault;
        self.on(resource, |times, config, now_ms| {
            let window_ms = ms(config.window);
            if config.limit == 0 {
                return config.window;
            }
            let now = times.now(now_ms);
            let counted: Vec<_> = times
                .ms
                .iter()
                .copied()
                .filter(|time| within(&[*time], now, window_ms) > 0)
                .collect();
            if (counted.len() as u64) < config.limit {
                return Duration::ZERO;
            }
            let until_ms = leaves_at(&counted, config.limit, window_ms, fault);
            Duration::from_millis(until_ms.saturating_sub(now_ms))
        })
    }

    fn set_resource_config(&self, resource: &str, config: RateLimitConfig) -> Pending<()> {
        let set = self.shared(|shared, _| shared.set_config(resource, config));
        match set.wait() {
            // What is kept from now on follows the new window.
            Ok(()) => self.on(resource, |_, _, _| ()),
            Err(error) => Pending::ready(Err(error)),
        }
    }

    fn resource_config(&self, resource: &str) -> Pending<RateLimitConfig> {
        self.on(resource, |_, config, _| config)
    }

    fn set_cooldown(&self, origin: &str, until_ms: u64) -> Pending<()> {
        self.shared(|shared, _| shared.set_cooldown(origin, until_ms))
    }

    fn cooldown(&self, origin: &str) -> Pending<Option<u64>> {
        self.shared(|shared, now_ms| shared.cooldown(origin, now_ms))
    }

    fn clear_cooldown(&self, origin: &str) -> Pending<()> {
        self.shared(|shared, _| shared.clear_cooldown(origin))
    }

    fn clear(&self) -> Pending<()> {
        let mut state = self.state.lock().unwrap();
        state.resources.clear();
        state.shared.cooldowns.clear();
        Pending::ready(Ok(()))
    }
}

/// An adaptive limiter over lists of times. It keeps every time for good.
pub struct NaiveAdaptive {
    config: RateLimitConfig,
    adaptive: AdaptiveConfig,
    clock: Arc<ManualClock>,
    fault: Fault,
    state: Mutex<Adaptive>,
}

#[derive(Default)]
struct Adaptive {
    shared: Shared,
    resources: BTreeMap<String, Resource>,
}

#[derive(Default)]
struct Resource {
    user: Times,
    background: Times,
    admitted: Times,
    shares: Option<Shares>,
}

#[derive(Clone, Copy)]
struct Shares {
    at_ms: u64,
    limit: u64,
    user: u64,
    paused: bool,
    sustained: bool,
    /// What the faulty ones answer later.
    activity: u64,
    remaining: u64,
}

/// One call: the configurations and the time.
#[derive(Clone, Copy)]
struct Call<'a> {
    rate: RateLimitConfig,
    adaptive: &'a AdaptiveConfig,
    now_ms: u64,
    fault: Fault,
}

impl Call<'_> {
    fn window_ms(self) -> u64 {
        ms(self.rate.window)
    }
}

impl Resource {
    fn record(&mut self, priority: Priority, now_ms: u64) {
        match priority {
            Priority::User => self.user.add(now_ms),
            Priority::Background => self.background.add(now_ms),
        }
    }

    fn activity(&self, call: Call<'_>) -> u64 {
        self.user.count(call.now_ms, ms(call.adaptive.monitoring_window))
    }

    fn shares(&mut self, call: Call<'_>, keep: bool) -> Shares {
        let interval_ms = ms(call.adaptive.recalculation_interval);
        let holds = |shares: &Shares| {
            shares.limit == call.rate.limit
                && call.now_ms < shares.at_ms.saturating_add(interval_ms)
        };
        if let Some(shares) = self.shares.filter(holds) {
            return shares;
        }
        let shares = self.computed(call);
        if keep {
            self.shares = Some(shares);
        }
        shares
    }

    fn computed(&self, call: Call<'_>) -> Shares {
        let (limit, config) = (call.rate.limit, call.adaptive);
        let third_ms = (ms(config.monitoring_window) / 3).max(1);
        let active = self.activity(call);
        let recent = self.user.count(call.now_ms, third_ms);
        let before = self.user.count(call.now_ms, 2 * third_ms) - recent;
        let factor = match (recent as f64, before as f64) {
            (0.0, 0.0) => 1.0,
            (recent, before) if recent > 1.5 * before => 1.2,
            (recent, before) if recent < 0.5 * before => 0.8,
            _ => 1.0,
        };
        let floor = |share: f64| (share * (1.0 + 1e-12)).floor() as u64;
        let tenths = |number: u64| limit * number / 10;
        let low = tenths(3).max(config.min_user_reserved);
        let (mut paused, mut sustained) = (false, false);
        let user = if active >= config.high_activity_threshold {
            paused = config.background_pause_on_increasing_trend && factor > 1.0;
            floor(limit as f64 * 0.5 * config.max_user_scaling).min(tenths(9))
        } else if active >= config.moderate_activity_threshold {
            let busy = 1.0 + active as f64 / config.high_activity_threshold as f64;
            let scaled = (busy.min(config.max_user_scaling) * factor).max(1.0);
            floor(tenths(4) as f64 * scaled).min(tenths(7))
        } else if active > 0 {
            low
        } else {
            match (self.user.ms.last(), self.background.ms.last()) {
                (None, None) => low,
                (None, Some(_)) => config.min_user_reserved,
                (Some(last_ms), _) => {
                    let ago_ms = call.now_ms.saturating_sub(*last_ms);
                    sustained = ago_ms > ms(config.sustained_inactivity_threshold);
                    if sustained { 0 } else { config.min_user_reserved }
                }
            }
        };
        let user = user.min(limit);
        let mut shares = Shares {
            at_ms: call.now_ms,
            limit,
            user,
            paused,
            sustained,
            activity: active,
            remaining: 0,
        };
        shares.remaining = self.remaining(&shares, call);
        shares
    }

    fn remaining(&self, shares: &Shares, call: Call<'_>) -> u64 {
        let count = |times: &Times| times.count(call.now_ms, call.window_ms());
        shares.user.saturating_sub(count(&self.user))
            + (shares.limit - shares.user).saturating_sub(count(&self.background))
    }

    /// The times that bound a priority, each with how many may count.
    fn bounds(&self, shares: &Shares, priority: Priority, fault: Fault) -> Vec<(Vec<u64>, u64)> {
        let own = match priority {
            Priority::User if shares.sustained && fault == Fault::UsersReturnInCrowds => {
                (Vec::new(), u64::MAX)
            }
            Priority::User if shares.sustained && fault != Fault::UsersNeverReturn => {
                ([&self.user.ms[..], &self.background.ms].concat(), shares.limit)
            }
            Priority::User => (self.user.ms.clone(), shares.user),
            Priority::Background => (self.background.ms.clone(), shares.limit - shares.user),
        };
        match fault {
            Fault::UsersReturnInCrowds if shares.sustained => vec![own],
            _ => vec![own, (self.admitted.ms.clone(), shares.limit)],
        }
    }

    /// Until when `priority` has to wait; not after now when it may go.
    fn until_ms(&self, shares: &Shares, priority: Priority, call: Call<'_>) -> u64 {
        let is_paused = priority == Priority::Background && shares.paused;
        let bounds = self.bounds(shares, priority, call.fault);
        let without_a_share = bounds.iter().any(|(_, most)| *most == 0);
        let as_paused = is_paused && call.fault != Fault::PausedWaitsForTheOldest;
        if as_paused || without_a_share {
            return shares.at_ms.saturating_add(ms(call.adaptive.recalculation_interval));
        }
        let until = bounds.into_iter().map(|(times, most)| {
            let counts = |time: &u64| within(&[*time], call.now_ms, call.window_ms()) > 0;
            let counted: Vec<_> = times.into_iter().filter(counts).collect();
            if (counted.len() as u64) < most {
                return call.now_ms + u64::from(is_paused);
            }
            leaves_at(&counted, most, call.window_ms(), call.fault)
        });
        until.max().unwrap_or(call.now_ms)
    }

    fn may_go(&self, shares: &Shares, priority: Priority, call: Call<'_>) -> bool {
        let fault = Fault::None;
        let fault = match call.fault {
            Fault::UsersNeverReturn | Fault::UsersReturnInCrowds => call.fault,
            _ => fault,
        };
        self.until_ms(shares, priority, Call { fault, ..call }) <= call.now_ms
    }
}

impl NaiveAdaptive {
    pub fn new(
        config: RateLimitConfig,
        adaptive: AdaptiveConfig,
        clock: Arc<ManualClock>,
        fault: Fault,
    ) -> Self {
        Self { config, adaptive, clock, fault, state: Mutex::default() }
    }

    fn on<R>(&self, resource: &str, run: impl FnOnce(&mut Resource, Call<'_>) -> R) -> Pending<R> {
        if let Err(error) = check_key("the resource", resource) {
            return Pending::ready(Err(error));
        }
        let mut state = self.state.lock().unwrap();
        let rate = state.shared.configs.get(resource).copied().unwrap_or(self.config);
        let (adaptive, now_ms, fault) = (&self.adaptive, self.clock.now_ms(), self.fault);
        let call = Call { rate, adaptive, now_ms, fault };
        let resource = state.resources.entry(resource.into()).or_default();
        Pending::ready(Ok(run(resource, call)))
    }

    /// The shares for a call that asks.
    fn asked(&self, resource: &mut Resource, call: Call<'_>) -> Shares {
        resource.shares(call, self.fault != Fault::AskingKeepsNothing)
    }

    fn shared<R>(&self, call: impl FnOnce(&mut Shared, u64) -> Result<R>) -> Pending<R> {
        let now_ms = self.clock.now_ms();
        Pending::ready(call(&mut self.state.lock().unwrap().shared, now_ms))
    }

    /// Forgets the shares of every resource, as a room does that is opened again.
    pub fn reopen(&self) {
        self.state.lock().unwrap().resources.values_mut().for_each(|of| of.shares = None);
    }
}

impl AdaptiveRateLimitStore for NaiveAdaptive {
    fn acquire(&self, resource: &str, priority: Priority) -> Pending<bool> {
        self.on(resource, |resource, call| {
            let before = resource.shares;
            let shares = resource.shares(call, true);
            let admitted = resource.may_go(&shares, priority, call);
            if admitted {
                resource.record(priority, call.now_ms);
                resource.admitted.add(call.now_ms);
            } else if self.fault == Fault::RefusalKeepsNothing {
                resource.shares = before;
            }
            admitted
        })
    }

    fn can_proceed(&self, resource: &str, priority: Priority) -> Pending<bool> {
        self.on(resource, |resource, call| {
            let shares = self.asked(resource, call);
            resource.may_go(&shares, priority, call)
        })
    }

    fn record(&self, resource: &str, priority: Priority) -> Pending<()> {
        self.on(resource, |resource, call| {
            if self.fault == Fault::RecordComputes {
                resource.shares(call, true);
            }
            resource.record(priority, call.now_ms);
        })
    }

    fn status(&self, resource: &str) -> Pending<AdaptiveRateLimitStatus> {
        self.on(resource, |resource, call| {
            let shares = self.asked(resource, call);
            let of_now = resource.remaining(&shares, call);
            let remaining = if self.fault == Fault::OldCounts { shares.remaining } else { of_now };
            let of_now = resource.activity(call);
            let activity = if self.fault == Fault::OldActivity { shares.activity } else { of_now };
            let reset_time = call.now_ms.saturating_add(call.window_ms());
            AdaptiveRateLimitStatus::new(RateLimitStatus::new(shares.limit, remaining, reset_time))
                .with_user_reserved(shares.user)
                .with_background_paused(shares.paused)
                .with_recent_user_activity(activity)
                .with_reason("counted")
        })
    }

    fn reset(&self, resource: &str) -> Pending<()> {
        self.on(resource, |resource, _| {
            let shares = resource.shares.filter(|_| self.fault == Fault::ResetKeepsShares);
            *resource = Resource { shares, ..Resource::default() };
        })
    }

    fn wait_time(&self, resource: &str, priority: Priority) -> Pending<Duration> {
        self.on(resource, |resource, call| {
            if call.rate.limit == 0 {
                return call.rate.window;
            }
            let shares = self.asked(resource, call);
            let until_ms = resource.until_ms(&shares, priority, call);
            Duration::from_millis(until_ms.saturating_sub(call.now_ms))
        })
    }

    fn set_resource_config(&self, resource: &str, config: RateLimitConfig) -> Pending<()> {
        self.shared(|shared, _| shared.set_config(resource, config))
    }

    fn resource_config(&self, resource: &str) -> Pending<RateLimitConfig> {
        self.on(resource, |_, call| call.rate)
    }

    fn set_cooldown(&self, origin: &str, until_ms: u64) -> Pending<()> {
        self.shared(|shared, _| shared.set_cooldown(origin, until_ms))
    }

    fn cooldown(&self, origin: &str) -> Pending<Option<u64>> {
        self.shared(|shared, now_ms| shared.cooldown(origin, now_ms))
    }

    fn clear_cooldown(&self, origin: &str) -> Pending<()> {
        self.shared(|shared, _| shared.clear_cooldown(origin))
    }

    fn clear(&self) -> Pending<()> {
        let mut state = self.state.lock().unwrap();
        state.resources.clear();
        state.shared.cooldowns.clear();
        Pending::ready(Ok(()))
    }
}

impl std::fmt::Debug for NaiveLimiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NaiveLimiter").field("fault", &self.fault).finish_non_exhaustive()
    }
}
