//! What the checks found: plain values, and how they are shown.

use std::time::Duration;

use serde::Serialize;

use crate::cli::{json, words};

/// The width of the longest name of a check.
const NAME_WIDTH: usize = 13;

/// The width of a latency, such as `12.3 ms`.
const LATENCY_WIDTH: usize = 7;

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// All is well.
    Ok,
    /// It could not be made, or was not wanted.
    Skipped,
    /// It works, and is worth a look.
    Warn,
    /// It does not work.
    Fail,
}

impl Outcome {
    /// The word for it. What is wrong stands out.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

/// One check and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Its name.
    pub check: &'static str,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took, where that says something.
    #[serde(rename = "latency_ms", serialize_with = "millis")]
    pub latency: Option<Duration>,
    /// What was found.
    pub found: String,
    /// What is wrong in particular, and what to do about it.
    pub advice: Vec<String>,
}

impl Finding {
    /// All is well.
    pub fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, Outcome::Ok, found, Vec::new())
    }

    /// It works, and is worth a look.
    pub fn warn(
        check: &'static str,
        found: impl Into<String>,
        advice: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self::new(check, Outcome::Warn, found, advice.into_iter().map(Into::into).collect())
    }

    /// It does not work.
    pub fn fail(
        check: &'static str,
        found: impl Into<String>,
        advice: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self::new(check, Outcome::Fail, found, advice.into_iter().map(Into::into).collect())
    }

    /// It was not made, and why.
    pub fn skipped(check: &'static str, why: impl Into<String>) -> Self {
        Self::new(check, Outcome::Skipped, why, Vec::new())
    }

    /// The same with how long it took.
    pub fn took(self, latency: Duration) -> Self {
        Self { latency: Some(latency), ..self }
    }

    fn new(
        check: &'static str,
        outcome: Outcome,
        found: impl Into<String>,
        advice: Vec<String>,
    ) -> Self {
        Self { check, outcome, latency: None, found: found.into(), advice }
    }

    /// What follows the outcome on its line, and the lines below it, with nothing in them
    /// that a terminal obeys.
    pub fn lines(&self) -> Vec<String> {
        let latency = self.latency.map(latency).unwrap_or_default();
        let head = format!("{:<NAME_WIDTH$}  {latency:>LATENCY_WIDTH$}  ", self.check);
        let below = " ".repeat(Outcome::Skipped.word().len() + 2 + head.len());
        let mut lines = vec![head + &words::printable(&self.found)];
        // A reason may have several lines, such as the place in a file.
        let advice = self.advice.iter().flat_map(|text| text.lines());
        lines.extend(advice.map(|line| format!("{below}{}", words::printable(line))));
        lines
    }
}

/// All checks that were made, in their order.
#[derive(Clone, Debug, Default)]
pub struct Report(Vec<Finding>);

impl Report {
    /// Adds what a check found.
    pub fn add(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    /// Why a check that needs others cannot be made: one of them failed, or was skipped, which
    /// has its own reason.
    pub fn missing(&self, needed: &[&str]) -> Option<String> {
        let needed = needed.iter().filter_map(|name| self.0.iter().find(|f| f.check == *name));
        let missing =
            needed.filter(|finding| matches!(finding.outcome, Outcome::Fail | Outcome::Skipped));
        let root = missing.min_by_key(|finding| finding.outcome != Outcome::Fail)?;
        Some(match root.outcome {
            Outcome::Fail => format!("{} failed", root.check),
            _ => root.found.clone(),
        })
    }

    /// Whether nothing failed.
    pub fn is_well(&self) -> bool {
        self.count(Outcome::Fail) == 0
    }

    /// All of it in a few words.
    pub fn summary(&self) -> String {
        let some = |number: usize, one: &str| count(number as u64, one);
        match (self.count(Outcome::Fail), self.count(Outcome::Warn)) {
            (0, 0) => "all is well".to_owned(),
            (0, warnings) => format!("all is well, with {}", some(warnings, "warning")),
            (failures, 0) => format!("{} failed", some(failures, "check")),
            (failures, warnings) => {
                format!("{} failed, {}", some(failures, "check"), some(warnings, "warning"))
            }
        }
    }

    /// All of it as one line of JSON.
    pub fn json(&self) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Whole<'a> {
            well: bool,
            checks: &'a [Finding],
        }
        let whole = Whole { well: self.is_well(), checks: &self.0 };
        Ok(json::without_controls(serde_json::to_string(&whole)?))
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.0.iter().filter(|finding| finding.outcome == outcome).count()
    }
}

/// What to say of a check that has not ended in time.
pub fn late(check: &'static str) -> Finding {
    let advice = "look at what it waits for (the brokers, the server, the disk), or give it longer \
                  with --timeout";
    Finding::fail(check, "no answer in time", [advice])
}

/// Such as `1 record` and `2 records`.
pub fn count(number: u64, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

/// A time with two or three digits that count.
pub fn latency(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1000.0;
    match millis {
        ..10.0 => format!("{millis:.1} ms"),
        ..1000.0 => format!("{millis:.0} ms"),
        _ => format!("{:.1} s", millis / 1000.0),
    }
}

#[allow(clippy::ref_option, reason = "serde's signature")]
fn millis<S: serde::Serializer>(time: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
    match time {
        // To the microsecond.
        Some(time) => s.serialize_some(&((time.as_secs_f64() * 1e6).round() / 1e3)),
        None => s.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(findings: impl IntoIterator<Item = Finding>) -> Report {
        Report(findings.into_iter().collect())
    }

    #[test]
    fn a_finding_is_a_line_and_its_advice_stands_below() {
        let finding = Finding::fail("log", "no broker\u{1b}[2J", ["start it\nor another", "x"])
            .took(Duration::from_millis(5012));
        assert_eq!(
            finding.lines(),
            [
                "log              5.0 s  no broker\\u{1b}[2J",
                "                                 start it",
                "                                 or another",
                "                                 x",
            ]
        );
        let skipped = Finding::skipped("configuration", "why").lines();
        assert_eq!(skipped, ["configuration           why"]);
    }

    #[test]
    fn latencies_show_what_counts() {
        for (micros, text) in
            [(40, "0.0 ms"), (3_240, "3.2 ms"), (45_400, "45 ms"), (2_345_000, "2.3 s")]
        {
            assert_eq!(latency(Duration::from_micros(micros)), text);
        }
    }

    #[test]
    fn a_check_is_skipped_for_the_failure_behind_it() {
        let report = report([
            Finding::ok("clock", ""),
            Finding::skipped("log", "why"),
            Finding::fail("configuration", "", [""; 0]),
            Finding::warn("catalogue", "", [""; 0]),
        ]);
        assert_eq!(report.missing(&["clock", "catalogue", "unknown"]), None);
        assert_eq!(report.missing(&["log", "configuration"]), Some("configuration failed".into()));
        assert_eq!(report.missing(&["clock", "log"]), Some("why".into()));
    }

    #[test]
    fn only_a_failure_is_not_well() {
        let ok = Finding::ok("a", "");
        let warn = Finding::warn("b", "", [""; 0]);
        let fail = Finding::fail("c", "", [""; 0]);
        for (findings, well, summary) in [
            (vec![ok.clone(), Finding::skipped("x", "")], true, "all is well"),
            (vec![ok.clone(), warn.clone()], true, "all is well, with 1 warning"),
            (vec![fail.clone()], false, "1 check failed"),
            (vec![fail.clone(), warn, fail], false, "2 checks failed, 1 warning"),
        ] {
            let report = report(findings);
            assert_eq!((report.is_well(), report.summary().as_str()), (well, summary));
        }
    }

    #[test]
    fn json_has_everything_and_is_safe_for_a_terminal() {
        let finding = Finding::fail("log", "x\u{9b}", ["do it"]).took(Duration::from_micros(1_234));
        let json = report([finding, Finding::ok("clock", "now")]).json().unwrap();
        assert_eq!(
            json,
            r#"{"well":false,"checks":[{"check":"log","outcome":"fail","latency_ms":1.234,"found":"x\u009b","advice":["do it"]},{"check":"clock","outcome":"ok","latency_ms":null,"found":"now","advice":[]}]}"#
        );
    }
}
