//! What a month of a fleet's messages costs, class by class, by the units that the agent's own meter counts in.

use std::io::Write;

use meter::Direction;
use meter::cost::{DOLLARS_PER_MILLION, Fleet};

use crate::cli;

pub fn run(arguments: &cli::Cost) -> anyhow::Result<()> {
    let fleet = Fleet {
        devices: arguments.devices,
        jobs_per_month: arguments.jobs_per_month,
        progress_reports: arguments.progress_reports,
        reconnects_per_month: arguments.reconnects_per_month,
        asks_per_month: arguments.asks_per_month,
        shadow_files: arguments.shadow_files,
        shadow_changes_per_month: arguments.shadow_changes_per_month,
        shadow_reports_per_month: arguments.shadow_reports_per_month,
    };
    let price = arguments.price_per_million.unwrap_or(DOLLARS_PER_MILLION);
    std::io::stdout().write_all(table(&fleet, price).as_bytes())?;
    Ok(())
}

fn table(fleet: &Fleet, price: f64) -> String {
    let mut text = format!("{:<16} {:<9} {:>16} {:>14}\n", "messages", "", "units a month", "$ a month");
    let row = |name: &str, direction: &str, units: u64| {
        format!("{name:<16} {direction:<9} {units:>16} {:>14.2}\n", units as f64 / 1e6 * price)
    };
    let mut total: u64 = 0;
    for (line, count) in fleet.month() {
        total = total.saturating_add(count.units);
        let direction = match line.direction {
            Direction::Sent => "sent",
            Direction::Received => "received",
        };
        text += &row(line.class.name(), direction, count.units);
    }
    text += &row("all", "", total);
    text + &format!(
        "\nAt ${price} a million units of 5 KiB. Beside this AWS bills each minute of a connection, and each job execution.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_devices_with_one_job_a_month_are_sixty_thousand_units_and_six_cents() {
        let fleet = Fleet {
            devices: 10_000,
            jobs_per_month: 1,
            progress_reports: 0,
            reconnects_per_month: 0,
            asks_per_month: 0,
            shadow_files: 0,
            shadow_changes_per_month: 0,
            shadow_reports_per_month: 0,
        };
        let text = table(&fleet, 1.0);
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert!(rows.contains(&vec!["jobs-notify", "received", "20000", "0.02"]), "{text}");
        assert!(rows.contains(&vec!["jobs-update", "sent", "20000", "0.02"]), "{text}");
        assert!(rows.contains(&vec!["jobs-update", "received", "20000", "0.02"]), "{text}");
        assert!(rows.contains(&vec!["all", "60000", "0.06"]), "{text}");
        assert!(!text.contains("connect "), "{text}");
    }
}
