//! The result of a run, as a table or one JSON object.

use crate::output::Output;
use crate::problem::Problem;
use serde_json::json;

/// The result of one run of the consume benchmark.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub tokens: u64,
    pub threads: usize,
    pub pipeline: usize,
    pub race: usize,
    pub seconds: f64,
    pub ops: u64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub flushes: u64,
    pub raw_flush_p50_us: f64,
    pub checkpoints: u64,
    pub log_bytes: u64,
    pub bytes_written: u64,
    pub proceeds: u64,
    pub replays: u64,
    pub double_consumes: u64,
    pub consumed_after_reopen: u64,
    /// Tokens that were acknowledged as consumed and are not after reopening, or vice versa.
    pub changed_by_reopen: u64,
}

impl Report {
    /// Whether every token was consumed at most once and reopening found the same state.
    pub fn holds(&self) -> bool {
        self.double_consumes == 0
            && self.consumed_after_reopen == self.proceeds
            && self.changed_by_reopen == 0
    }

    /// What did not hold.
    pub fn failure(&self) -> String {
        format!(
            "{} tokens were consumed twice, {} were consumed before and {} after reopening, {} changed",
            self.double_consumes, self.proceeds, self.consumed_after_reopen, self.changed_by_reopen
        )
    }

    fn ops_per_s(&self) -> f64 {
        if self.seconds > 0.0 { to_f64(self.ops) / self.seconds } else { 0.0 }
    }

    fn per_op(&self, amount: u64) -> f64 {
        if self.ops == 0 { 0.0 } else { to_f64(amount) / to_f64(self.ops) }
    }

    /// Prints it to standard output.
    pub fn print(&self, out: &mut Output) -> Result<(), Problem> {
        if out.is_json() { out.line(&self.to_json()) } else { out.text(&self.to_table()) }
    }

    /// One object, with its keys in the documented order.
    fn to_json(&self) -> String {
        let workload = if self.race > 0 { "consume-race" } else { "consume" };
        let fields = [
            ("workload", json!(workload)),
            ("tokens", json!(self.tokens)),
            ("threads", json!(self.threads)),
            ("pipeline", json!(self.pipeline)),
            ("seconds", json!(round(self.seconds, 1e3))),
            ("ops", json!(self.ops)),
            ("ops_per_s", json!(self.ops_per_s().round())),
            ("p50_us", json!(round(self.p50_us, 1e1))),
            ("p99_us", json!(round(self.p99_us, 1e1))),
            ("flushes", json!(self.flushes)),
            ("raw_flush_p50_us", json!(round(self.raw_flush_p50_us, 1e1))),
            ("checkpoints", json!(self.checkpoints)),
            ("log_bytes_per_op", json!(round(self.per_op(self.log_bytes), 1e1))),
            ("bytes_written_per_op", json!(round(self.per_op(self.bytes_written), 1e1))),
            ("proceeds", json!(self.proceeds)),
            ("replays", json!(self.replays)),
            ("double_consumes", json!(self.double_consumes)),
            ("consumed_after_reopen", json!(self.consumed_after_reopen)),
        ];
        let fields: Vec<_> =
            fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        format!("{{{}}}", fields.join(","))
    }

    fn to_table(&self) -> String {
        let raw_per_s = if self.raw_flush_p50_us > 0.0 { 1e6 / self.raw_flush_p50_us } else { 0.0 };
        let how = match self.race {
            0 => format!("{} threads, {} in flight each", self.threads, self.pipeline),
            race => {
                format!("{race} threads race for every token, {} in flight each", self.pipeline)
            }
        };
        let rows = [
            ("tokens", self.tokens.to_string()),
            ("callers", how),
            ("time", format!("{:.2} s", self.seconds)),
            ("consumes", self.ops.to_string()),
            ("throughput", format!("{:.0} /s", self.ops_per_s())),
            ("latency p50 / p99", format!("{:.0} / {:.0} us", self.p50_us, self.p99_us)),
            ("flushes", format!("{} ({:.1} consumes each)", self.flushes, self.per_flush())),
            ("raw flush p50", format!("{:.0} us ({raw_per_s:.0} /s)", self.raw_flush_p50_us)),
            ("checkpoints", self.checkpoints.to_string()),
            ("log bytes", format!("{:.0} per consume", self.per_op(self.log_bytes))),
            ("all bytes written", format!("{:.0} per consume", self.per_op(self.bytes_written))),
            ("proceed / replay", format!("{} / {}", self.proceeds, self.replays)),
            ("consumed twice", self.double_consumes.to_string()),
            ("consumed after reopen", self.consumed_after_reopen.to_string()),
            (
                "verdict",
                if self.holds() { "every token at most once".into() } else { self.failure() },
            ),
        ];
        rows.iter().map(|(name, value)| format!("{name:<22} {value}\n")).collect()
    }

    fn per_flush(&self) -> f64 {
        if self.flushes == 0 { 0.0 } else { to_f64(self.ops) / to_f64(self.flushes) }
    }
}

/// Counts are far below 2^53, so a float is exact.
#[expect(clippy::cast_precision_loss, reason = "counts of one run are far below 2^53")]
fn to_f64(count: u64) -> f64 {
    count as f64
}

fn round(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> Report {
        Report { ops: 10, seconds: 2.0, proceeds: 7, consumed_after_reopen: 7, ..Report::default() }
    }

    #[test]
    fn a_run_holds_only_when_nothing_was_doubled_lost_or_changed() {
        assert!(sound().holds());
        assert!(!Report { double_consumes: 1, ..sound() }.holds());
        assert!(!Report { consumed_after_reopen: 6, ..sound() }.holds());
        assert!(!Report { changed_by_reopen: 1, ..sound() }.holds());
    }

    #[test]
    fn the_json_has_the_documented_keys() {
        let text = sound().to_json();
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        let documented = [
            "workload",
            "tokens",
            "threads",
            "pipeline",
            "seconds",
            "ops",
            "ops_per_s",
            "p50_us",
            "p99_us",
            "flushes",
            "raw_flush_p50_us",
            "checkpoints",
            "log_bytes_per_op",
            "bytes_written_per_op",
            "proceeds",
            "replays",
            "double_consumes",
            "consumed_after_reopen",
        ];
        assert_eq!(object.as_object().unwrap().len(), documented.len());
        let places: Vec<_> =
            documented.iter().map(|key| text.find(&format!("\"{key}\":")).unwrap()).collect();
        assert!(places.is_sorted(), "{text}");
        assert_eq!(object["ops_per_s"], 5.0);
    }
}
