//! The status for a person.

use std::fmt::{Display, Formatter, Result};

use super::{
    Certificate, Connection, Execution, LastMonth, Metered, Outcome, Publishing, Shadow, State, Status,
};

impl Display for Status {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let agent = &self.agent;
        writeln!(f, "fleethand    {} as {} at {}", agent.version, agent.thing_name, agent.endpoint)?;
        writeln!(f, "running      for {}", Span(agent.runs_for_seconds))?;
        writeln!(f, "connection   {}", self.connection)?;
        match &self.execution {
            Some(execution) => writeln!(f, "execution    {execution}")?,
            None => writeln!(f, "execution    none")?,
        }
        let version = self.firmware.version.as_deref().unwrap_or("none was installed by the agent");
        match &self.firmware.slot {
            Some(slot) => writeln!(f, "firmware     {version}; slot {slot} runs")?,
            None => writeln!(f, "firmware     {version}")?,
        }
        if let Some(certificate) = &self.certificate {
            writeln!(f, "certificate  {certificate}")?;
        }
        if let Some(meter) = &self.meter {
            writeln!(f, "meter        {meter}")?;
        }
        if let Some(publishing) = &self.publishing {
            writeln!(f, "publishing   {publishing}")?;
        }
        for (n, shadow) in self.shadows.iter().enumerate() {
            writeln!(f, "{:<12} {shadow}", if n == 0 { "shadows" } else { "" })?;
        }
        for (n, outcome) in self.outcomes.iter().enumerate() {
            writeln!(f, "{:<12} {outcome}", if n == 0 { "outcomes" } else { "" })?;
        }
        Ok(())
    }
}

impl Display for Shadow {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let name = self.name.as_deref().unwrap_or("the classic one");
        match (self.version, &self.refused) {
            (None, _) => write!(f, "{name}: not known yet"),
            (Some(version), Some(refused)) => {
                write!(f, "{name} (version {version}): REFUSED: {}: {}", refused.reason, refused.message)
            }
            (Some(version), None) => write!(f, "{name} (version {version})"),
        }
    }
}

impl Display for Connection {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let span = Span(self.for_seconds);
        match self.state {
            State::Connecting => write!(f, "connecting for {span}"),
            State::Connected => write!(f, "connected for {span}"),
            State::NotConnected => {
                write!(f, "NOT connected for {span}: {}", self.cause.as_deref().unwrap_or_default())
            }
        }
    }
}

impl Display for Execution {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match (&self.job_id, self.execution_number) {
            (Some(job_id), Some(number)) => write!(f, "{job_id} ({number})")?,
            _ => f.write_str("ordered on the device")?,
        }
        if let Some(operation) = &self.operation {
            write!(f, " {operation}")?;
        }
        let Some(phase) = &self.phase else {
            return write!(f, ": {}, and the cloud does not know yet", self.status);
        };
        write!(f, ": {phase}")?;
        if let Some(until) = &self.until {
            write!(f, " until {until}")?;
        }
        if let Some(percent) = self.percent {
            write!(f, " {percent} %")?;
        }
        if let Some(rate) = self.bytes_per_second {
            write!(f, ", {} KiB/s", rate.div_ceil(1024))?;
        }
        match self.seconds_left {
            Some(left) => write!(f, ", {} left", Span(left)),
            None => Ok(()),
        }
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let at = self.settled_at.as_deref().unwrap_or("-");
        write!(
            f,
            "{at:<20} {} ({}) {} {}: {}",
            self.job_id, self.execution_number, self.status, self.reason, self.message
        )
    }
}

impl Display for Certificate {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.days_left {
            ..0 => write!(f, "EXPIRED at {}", self.expires),
            days if self.expires_soon => write!(f, "EXPIRES in {days} days, at {}", self.expires),
            days => write!(f, "valid until {}, for {days} days", self.expires),
        }
    }
}

impl Display for Metered {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} units in {}", self.units, self.month)?;
        let mut classes: Vec<(u64, &str)> = Vec::new();
        for (line, count) in self.lines.lines() {
            match classes.iter_mut().find(|(_, name)| *name == line.class.name()) {
                Some((units, _)) => *units = units.saturating_add(count.units),
                None => classes.push((count.units, line.class.name())),
            }
        }
        classes.sort_by(|one, other| other.cmp(one));
        for (n, (units, name)) in classes.iter().enumerate() {
            write!(f, "{} {name} {units}", if n == 0 { ":" } else { "," })?;
        }
        match &self.last_month {
            Some(LastMonth { month, units }) => write!(f, "; {units} in {month}"),
            None => Ok(()),
        }
    }
}

impl Display for Publishing {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { readings, refused, batches, lost_batches, waiting_bytes } = self;
        write!(f, "{readings} readings taken, {batches} batches delivered")?;
        if *waiting_bytes > 0 {
            write!(f, ", {} KiB wait", waiting_bytes.div_ceil(1024))?;
        }
        if *refused > 0 {
            write!(f, ", {refused} lines refused")?;
        }
        if *lost_batches > 0 {
            write!(f, ", {lost_batches} batches LOST")?;
        }
        Ok(())
    }
}

/// Seconds, in the two units that matter.
struct Span(u64);

impl Display for Span {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.0 {
            s @ ..60 => write!(f, "{s} s"),
            s @ 60..3600 => write!(f, "{} min {} s", s / 60, s % 60),
            s @ 3600..86_400 => write!(f, "{} h {} min", s / 3600, s / 60 % 60),
            s => write!(f, "{} d {} h", s / 86_400, s / 3600 % 24),
        }
    }
}

#[cfg(test)]
mod tests {
    use meter::{Class, Direction, Month, Tally};

    use super::*;

    #[test]
    fn spans_are_told_in_two_units() {
        let cases = [(0, "0 s"), (61, "1 min 1 s"), (3_725, "1 h 2 min"), (200_000, "2 d 7 h")];
        for (seconds, expected) in cases {
            assert_eq!(Span(seconds).to_string(), expected);
        }
    }

    #[test]
    fn the_dearest_class_is_said_first() {
        let mut lines = Tally::default();
        lines.count(Class::Connect, Direction::Sent, 20);
        lines.count(Class::JobsUpdate, Direction::Sent, 6000);
        lines.count(Class::JobsUpdate, Direction::Received, 20);
        let month = Month::of(std::time::UNIX_EPOCH);
        let last_month = month.previous().map(|month| LastMonth { month, units: 7 });
        let metered = Metered { month, units: lines.units(), lines, last_month };
        let expected = "4 units in 1970-01: jobs-update 3, connect 1; 7 in 1969-12";
        assert_eq!(metered.to_string(), expected);
        let nothing = Metered { units: 0, lines: Tally::default(), last_month: None, ..metered };
        assert_eq!(nothing.to_string(), "0 units in 1970-01");
    }

    #[test]
    fn of_publishing_what_is_wrong_is_said() {
        let well = Publishing { readings: 100, batches: 25, ..Publishing::default() };
        assert_eq!(well.to_string(), "100 readings taken, 25 batches delivered");
        let full = Publishing { refused: 2, lost_batches: 3, waiting_bytes: 1025, ..well };
        let expected =
            "100 readings taken, 25 batches delivered, 2 KiB wait, 2 lines refused, 3 batches LOST";
        assert_eq!(full.to_string(), expected);
    }

    #[test]
    fn an_execution_says_what_is_known_of_it() {
        let all = Execution {
            job_id: Some("fw-2".into()),
            execution_number: Some(1),
            operation: Some("update-firmware".into()),
            status: "IN_PROGRESS".into(),
            phase: Some("downloading".into()),
            percent: Some(41),
            bytes_per_second: Some(1_258_291),
            seconds_left: Some(95),
            ..Execution::default()
        };
        let expected = "fw-2 (1) update-firmware: downloading 41 %, 1229 KiB/s, 1 min 35 s left";
        assert_eq!(all.to_string(), expected);
        let waits = Execution {
            phase: Some("waiting".into()),
            until: Some("next-reboot".into()),
            ..Execution::default()
        };
        assert_eq!(waits.to_string(), "ordered on the device: waiting until next-reboot");
        let owed = Execution { phase: None, percent: None, status: "FAILED".into(), ..all };
        assert_eq!(owed.to_string(), "fw-2 (1) update-firmware: FAILED, and the cloud does not know yet");
    }
}
