//! [`Goals`]: what was wanted, what was seen.

use super::table;

#[derive(Default)]
pub struct Goals {
    rows: Vec<Vec<String>>,
}

impl Goals {
    pub fn at_most(&mut self, what: &str, bound: f64, seen: f64) {
        self.add(what, format!("≤ {bound}"), seen, seen <= bound);
    }

    pub fn at_least(&mut self, what: &str, bound: f64, seen: f64) {
        self.add(what, format!("≥ {bound}"), seen, seen >= bound);
    }

    fn add(&mut self, what: &str, wanted: String, seen: f64, is_met: bool) {
        let verdict = if is_met { "met" } else { "MISSED" };
        self.rows.push(vec![what.to_owned(), wanted, format!("{seen:.3}"), verdict.to_owned()]);
    }

    pub fn print(&self) {
        println!();
        table::print(&["goal", "wanted", "seen", ""], &self.rows);
    }
}
