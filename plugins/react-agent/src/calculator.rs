//! Arithmetic on numbers with a point: `+ - * / % ^`, parentheses, functions and constants.
//!
//! Numbers are those of IEEE 754 with 64 bits; a result is shown with 15 significant digits, which is what they hold.

/// The deepest nesting of parentheses, signs and powers.
const DEPTH: u32 = 100;
/// The longest expression, in bytes.
const LENGTH: usize = 4_096;

/// Evaluates an expression.
///
/// # Errors
/// What is wrong and where, for whoever wrote it; also a division by zero, and a result that is no number.
pub(crate) fn evaluate(expression: &str) -> Result<String, String> {
    if expression.len() > LENGTH {
        return Err(format!("the expression is longer than {LENGTH} bytes"));
    }
    let mut parser = Parser { text: expression, at: 0, depth: 0 };
    let value = parser.sum()?;
    match parser.peek() {
        None => Ok(shown(finite(value, "the result")?)),
        Some(')') => Err(parser.wrong("there is a `)` without its `(`")),
        Some(_) => Err(parser.wrong("an operator was expected")),
    }
}

/// 15 significant digits, without zeros at the end.
fn shown(value: f64) -> String {
    let without_zeros = |digits: &str| match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => digits.to_owned(),
    };
    if value == 0.0 {
        return "0".into();
    }
    // Rounds first, so that the exponent is that of the digits that are shown.
    let scientific = format!("{value:.14e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent @ -7..15) => {
            let decimals = usize::try_from(14 - exponent).unwrap_or_default();
            without_zeros(&format!("{value:.decimals$}"))
        }
        _ => format!("{}e{exponent}", without_zeros(digits)),
    }
}

fn finite(value: f64, what: &str) -> Result<f64, String> {
    match value {
        _ if value.is_nan() => Err(format!("{what} is no real number")),
        _ if value.is_infinite() => Err(format!("{what} is too large")),
        _ => Ok(value),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    /// The next character that is no space.
    fn peek(&mut self) -> Option<char> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        self.rest().chars().next()
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn wrong(&self, why: &str) -> String {
        let rest: String = self.rest().chars().take(20).collect();
        let place = if rest.is_empty() { "at the end".into() } else { format!("at {rest:?}") };
        format!("{why}, {place}")
    }

    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, String> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(format!("the expression is nested deeper than {DEPTH}"));
        }
        let value = inner(self);
        self.depth -= 1;
        value
    }

    /// `product + product - …`
    fn sum(&mut self) -> Result<f64, String> {
        let mut value = self.product()?;
        loop {
            if self.take('+') {
                value += self.product()?;
            } else if self.take('-') || self.take('\u{2212}') {
                value -= self.product()?;
            } else {
                return Ok(value);
            }
        }
    }

    /// `signed * signed / signed % …`
    fn product(&mut self) -> Result<f64, String> {
        let mut value = self.signed()?;
        loop {
            if self.take('*') || self.take('\u{d7}') {
                if self.rest().starts_with('*') {
                    return Err(self.wrong("a power is written ^"));
                }
                value *= self.signed()?;
            } else if self.take('/') || self.take('\u{f7}') {
                value /= self.divisor("division")?;
            } else if self.take('%') {
                value %= self.divisor("remainder")?;
            } else {
                return Ok(value);
            }
        }
    }

    fn divisor(&mut self, what: &str) -> Result<f64, String> {
        match self.signed()? {
            0.0 => Err(format!("{what} by zero")),
            divisor => Ok(divisor),
        }
    }

    /// `-power`; so that -2^2 is -4.
    fn signed(&mut self) -> Result<f64, String> {
        if self.take('-') || self.take('\u{2212}') {
            return self.deeper(|parser| parser.signed().map(|value| -value));
        }
        if self.take('+') {
            return self.deeper(Self::signed);
        }
        self.power()
    }

    /// `atom ^ signed`, from the right: 2^3^2 is 2^9.
    fn power(&mut self) -> Result<f64, String> {
        let base = self.atom()?;
        if !self.take('^') {
            return Ok(base);
        }
        let exponent = self.deeper(Self::signed)?;
        if base == 0.0 && exponent < 0.0 {
            return Err("division by zero".into());
        }
        finite(base.powf(exponent), "the power")
    }

    fn atom(&mut self) -> Result<f64, String> {
        match self.peek() {
            Some('(') => {
                self.at += 1;
                let value = self.deeper(Self::sum)?;
                if self.take(')') { Ok(value) } else { Err(self.wrong("a `)` was expected")) }
            }
            Some(c) if c.is_ascii_digit() || c == '.' => self.number(),
            Some(c) if c.is_ascii_alphabetic() => self.name(),
            _ => Err(self.wrong("a number was expected")),
        }
    }

    /// `12`, `1.5`, `.5`, `1e-3`.
    fn number(&mut self) -> Result<f64, String> {
        let rest = self.rest().as_bytes();
        let digits = |from: usize| rest[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let mut length = digits(0);
        if rest.get(length) == Some(&b'.') {
            length += 1 + digits(length + 1);
        }
        if matches!(rest.get(length), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(rest.get(length + 1), Some(b'+' | b'-')));
            let exponent = digits(length + 1 + sign);
            length += if exponent > 0 { 1 + sign + exponent } else { 0 };
        }
        let Ok(value) = self.rest()[..length].parse::<f64>() else {
            return Err(self.wrong("a number was expected"));
        };
        self.at += length;
        if self.rest().starts_with(',') && self.rest()[1..].starts_with(|c: char| c.is_ascii_digit()) && self.depth == 0
        {
            return Err(self.wrong("numbers are written without `,`"));
        }
        finite(value, "a number")
    }

    /// A constant, or a function with its arguments.
    fn name(&mut self) -> Result<f64, String> {
        let rest = self.rest();
        let name = rest[..rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len())].to_ascii_lowercase();
        self.at += name.len();
        if !self.take('(') {
            return match name.as_str() {
                "pi" => Ok(std::f64::consts::PI),
                "e" => Ok(std::f64::consts::E),
                _ => Err(format!("{name:?} is neither a number nor pi nor e")),
            };
        }
        let arguments = self.deeper(Self::arguments)?;
        let value = apply(&name, &arguments)?;
        finite(value, &format!("{name}(…)"))
    }

    fn arguments(&mut self) -> Result<Vec<f64>, String> {
        let mut arguments = vec![self.sum()?];
        while self.take(',') {
            arguments.push(self.sum()?);
        }
        if self.take(')') { Ok(arguments) } else { Err(self.wrong("a `)` was expected")) }
    }
}

fn apply(name: &str, arguments: &[f64]) -> Result<f64, String> {
    let function: fn(f64) -> f64 = match (name, arguments) {
        ("min", all) => return Ok(all.iter().copied().fold(f64::INFINITY, f64::min)),
        ("max", all) => return Ok(all.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
        ("sqrt", _) => f64::sqrt,
        ("abs", _) => f64::abs,
        ("ln", _) => f64::ln,
        ("log" | "log10", _) => f64::log10,
        ("log2", _) => f64::log2,
        ("exp", _) => f64::exp,
        ("sin", _) => f64::sin,
        ("cos", _) => f64::cos,
        ("tan", _) => f64::tan,
        ("round", _) => f64::round,
        ("floor", _) => f64::floor,
        ("ceil", _) => f64::ceil,
        _ => {
            return Err(format!(
                "there is no function {name:?}; there are sqrt abs ln log log2 exp sin cos tan round floor ceil min max"
            ));
        }
    };
    match arguments {
        [argument] => Ok(function(*argument)),
        many => Err(format!("{name} takes 1 argument, not {}", many.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::evaluate;

    #[test]
    fn expressions_are_what_arithmetic_says() {
        for (expression, value) in [
            ("1", "1"),
            ("1 + 2 * 3", "7"),
            ("(1 + 2) * 3", "9"),
            ("10 - 4 - 3", "3"),
            ("100 / 8 / 2", "6.25"),
            ("7 % 4", "3"),
            ("-7 % 4", "-3"),
            ("2^10", "1024"),
            ("2^3^2", "512"),
            ("-2^2", "-4"),
            ("(-2)^2", "4"),
            ("2^-1", "0.5"),
            ("2 * -3", "-6"),
            ("--3", "3"),
            (".5 + 1.", "1.5"),
            ("0.1 + 0.2", "0.3"),
            ("1/3", "0.333333333333333"),
            ("2/3 * 3", "2"),
            ("123456789 * 987654321", "1.21932631112635e17"),
            ("999999999999999", "999999999999999"),
            ("1e3 + 2E-1", "1000.2"),
            ("1.5e-9", "1.5e-9"),
            ("0.00000012", "0.00000012"),
            ("1e15", "1e15"),
            ("1e14 * 10 - 1", "999999999999999"),
            ("0 * -1", "0"),
            ("sqrt(2)^2", "2"),
            ("max(1, 5, 3) + min(2, 1)", "6"),
            ("round(2.5) + floor(-1.5) + ceil(1.2)", "3"),
            ("ln(e) + log(1000) + log2(8) + exp(0)", "8"),
            ("sin(0) + cos(0) + tan(0) + abs(-1)", "2"),
            ("2 * PI", "6.28318530717959"),
            ("6 \u{d7} 7 \u{f7} 2 \u{2212} 1", "20"),
            ("17 * (3.5 + 1.5) ^ 2", "425"),
        ] {
            assert_eq!(evaluate(expression), Ok(value.to_owned()), "{expression}");
        }
    }

    #[test]
    fn what_is_no_expression_is_refused_and_says_where() {
        for (expression, why) in [
            ("", "at the end"),
            ("1 +", "at the end"),
            ("(1 + 2", "`)` was expected"),
            ("1 + 2)", "without its"),
            ("1 2", "operator"),
            ("2 ** 3", "written ^"),
            ("1,000 + 1", "without `,`"),
            ("two", "\"two\""),
            ("foo(1)", "no function \"foo\""),
            ("sqrt(1, 2)", "takes 1 argument"),
            ("1 / 0", "division by zero"),
            ("1 / (2 - 2)", "division by zero"),
            ("5 % 0", "remainder by zero"),
            ("0 ^ -1", "division by zero"),
            ("sqrt(-1)", "no real number"),
            ("(-8) ^ 0.5", "no real number"),
            ("ln(0)", "too large"),
            ("10 ^ 400", "too large"),
            ("1e999", "too large"),
            ("1e308 * 10", "too large"),
            ("\u{1f35e}", "number was expected"),
            (".", "number was expected"),
            ("import os", "\"import\""),
        ] {
            let error = evaluate(expression).unwrap_err();
            assert!(error.contains(why), "{expression}: {error}");
        }
    }

    #[test]
    fn depth_and_length_are_bounded() {
        for deep in ["(".repeat(2_000), "-".repeat(2_000), "2^".repeat(2_000), "sqrt(".repeat(800)] {
            assert!(evaluate(&deep).unwrap_err().contains("nested deeper"), "{deep:.10}");
        }
        assert!(evaluate(&"1+".repeat(3_000)).unwrap_err().contains("longer than 4096 bytes"));
        assert_eq!(evaluate(&format!("{}1{}", "(".repeat(50), ")".repeat(50))), Ok("1".into()));
    }
}
