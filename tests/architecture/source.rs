//! Reads Rust source as far as the rules need it: tokens without comments and
//! strings, and the paths in them, resolved against the file's own module.

/// A word, `::`, or one other character, with its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    pub line: usize,
}

/// A path as it is written, `super` and `self` resolved: `crate::a::B` or
/// `std::fs::read`. A glob ends in `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    pub segments: Vec<String>,
    pub line: usize,
    /// Whether it stands in a `use`, where one word alone is a path too.
    pub imported: bool,
}

impl Path {
    /// Whether it begins with these segments.
    pub fn starts_with(&self, prefix: &[&str]) -> bool {
        self.segments.len() >= prefix.len()
            && self.segments.iter().zip(prefix).all(|(segment, wanted)| segment == wanted)
    }
}

/// The tokens of a source. Comments, strings, characters and lifetimes are gone;
/// each string leaves one `"` behind.
pub fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut found = Vec::new();
    let (mut i, mut line) = (0, 1);
    while i < chars.len() {
        let start = i;
        let text = match at(i) {
            '/' if at(i + 1) == '/' => {
                while i < chars.len() && at(i) != '\n' {
                    i += 1;
                }
                None
            }
            '/' if at(i + 1) == '*' => {
                let mut depth = 0;
                while i < chars.len() {
                    match (at(i), at(i + 1)) {
                        ('/', '*') => (depth, i) = (depth + 1, i + 2),
                        ('*', '/') => (depth, i) = (depth - 1, i + 2),
                        _ => i += 1,
                    }
                    if depth == 0 {
                        break;
                    }
                }
                None
            }
            '"' => {
                i = end_of_string(&chars, i + 1);
                Some("\"".to_owned())
            }
            '\'' => {
                // 'a' and '\n' are characters, 'a without a second quote a lifetime.
                if at(i + 1) == '\\' {
                    i += 3;
                    while i < chars.len() && at(i) != '\'' {
                        i += 1;
                    }
                    i += 1;
                } else if at(i + 2) == '\'' {
                    i += 3;
                } else {
                    i += 1;
                    while is_word(at(i)) {
                        i += 1;
                    }
                }
                None
            }
            ':' if at(i + 1) == ':' => {
                i += 2;
                Some("::".to_owned())
            }
            c if is_word(c) => {
                while is_word(at(i)) {
                    i += 1;
                }
                let word: String = chars[start..i].iter().collect();
                let raw = matches!(word.as_str(), "r" | "br" | "cr");
                let prefix = raw || matches!(word.as_str(), "b" | "c");
                let hashes = (i..).take_while(|&j| at(j) == '#').count();
                if raw && at(i + hashes) == '"' {
                    i = end_of_raw_string(&chars, i + hashes + 1, hashes);
                    Some("\"".to_owned())
                } else if prefix && at(i) == '"' {
                    i = end_of_string(&chars, i + 1);
                    Some("\"".to_owned())
                } else if word == "r" && hashes == 1 && is_word(at(i + 1)) {
                    // A raw identifier, r#type.
                    i += 1;
                    while is_word(at(i)) {
                        i += 1;
                    }
                    Some(chars[start + 2..i].iter().collect())
                } else {
                    Some(word)
                }
            }
            c => {
                i += 1;
                (!c.is_whitespace()).then(|| c.to_string())
            }
        };
        if let Some(text) = text {
            found.push(Token { text, line });
        }
        line += chars[start..i.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    found
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn end_of_string(chars: &[char], mut i: usize) -> usize {
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

fn end_of_raw_string(chars: &[char], mut i: usize, hashes: usize) -> usize {
    while i < chars.len() {
        if chars[i] == '"'
            && chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
        {
            return i + 1 + hashes;
        }
        i += 1;
    }
    i
}

/// The tokens without the items marked `#[cfg(test)]`, and the names of modules in
/// other files that are marked so.
pub fn without_tests(tokens: &[Token]) -> (Vec<Token>, Vec<String>) {
    let (mut kept, mut test_modules) = (Vec::new(), Vec::new());
    let mut i = 0;
    while i < tokens.len() {
        if !is_at(tokens, i, &["#", "[", "cfg", "("]) {
            kept.push(tokens[i].clone());
            i += 1;
            continue;
        }
        let end = closing(tokens, i + 1) + 1;
        let test = is_at(tokens, i + 4, &["test", ")"])
            || is_at(tokens, i + 4, &["all", "(", "test", ","]);
        if !test {
            kept.extend_from_slice(&tokens[i..end.min(tokens.len())]);
            i = end;
            continue;
        }
        // The item: up to its `;`, or to the end of its braces.
        i = end;
        while i < tokens.len() {
            match tokens[i].text.as_str() {
                ";" => {
                    if i > 1 && tokens[i - 2].text == "mod" {
                        test_modules.push(tokens[i - 1].text.clone());
                    }
                    break;
                }
                "{" => {
                    i = closing(tokens, i);
                    // `use a::{b, c};` goes on behind its braces.
                    if !is_at(tokens, i + 1, &[";"]) {
                        break;
                    }
                }
                "(" | "[" => i = closing(tokens, i),
                // The end of what the item is in: it was a field or an arm.
                "}" | ")" => {
                    i -= 1;
                    break;
                }
                _ => {}
            }
            i += 1;
        }
        i += 1;
    }
    (kept, test_modules)
}

fn is_at(tokens: &[Token], i: usize, texts: &[&str]) -> bool {
    tokens.len() >= i + texts.len()
        && tokens[i..].iter().zip(texts).all(|(t, text)| t.text == *text)
}

/// The index of the bracket that closes the one at `open`.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i;
        }
    }
    tokens.len()
}

/// All paths in `tokens`, which are those of module `module` (`["feed", "hub"]`).
pub fn paths(tokens: &[Token], module: &[&str]) -> Vec<Path> {
    let mut module: Vec<String> = module.iter().map(|&name| name.to_owned()).collect();
    let mut found = Vec::new();
    // The ends of the inline modules we are in.
    let mut inline: Vec<usize> = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        if inline.last() == Some(&i) {
            inline.pop();
            module.pop();
        }
        let text = tokens[i].text.as_str();
        if text == "mod" && is_at(tokens, i + 2, &["{"]) {
            module.push(tokens[i + 1].text.clone());
            inline.push(closing(tokens, i + 2));
            i += 3;
        } else if text == "use" && !is_at(tokens, i + 1, &["<"]) {
            i = use_tree(tokens, i + 1, &module, &[], &mut found);
        } else if text.starts_with(is_word) && (i == 0 || tokens[i - 1].text != ".") {
            let line = tokens[i].line;
            let mut segments = vec![text.to_owned()];
            i += 1;
            while is_at(tokens, i, &["::"])
                && tokens.get(i + 1).is_some_and(|t| t.text.starts_with(is_word))
            {
                segments.push(tokens[i + 1].text.clone());
                i += 2;
            }
            found.push(Path { segments: resolved(&segments, &module), line, imported: false });
        } else {
            i += 1;
        }
    }
    found
}

/// Reads one tree of a `use` from `i` on; returns the index behind it.
fn use_tree(
    tokens: &[Token],
    mut i: usize,
    module: &[String],
    prefix: &[String],
    found: &mut Vec<Path>,
) -> usize {
    let mut segments = prefix.to_vec();
    let line = tokens.get(i).map_or(0, |t| t.line);
    while let Some(token) = tokens.get(i) {
        match token.text.as_str() {
            "::" => i += 1,
            "{" => {
                let end = closing(tokens, i);
                i += 1;
                while i < end {
                    i = use_tree(tokens, i, module, &segments, found);
                    if is_at(tokens, i, &[","]) {
                        i += 1;
                    }
                }
                return end + 1;
            }
            "as" => i += 2,
            text if text == "*" || text.starts_with(is_word) => {
                // `self` at the end of `a::{self}` is `a`.
                if text != "self" || segments.is_empty() {
                    segments.push(text.to_owned());
                }
                i += 1;
            }
            _ => break,
        }
    }
    found.push(Path { segments: resolved(&segments, module), line, imported: true });
    // A stray token must not stop the scan.
    if is_at(tokens, i, &[","]) || is_at(tokens, i, &["}"]) || is_at(tokens, i, &[";"]) {
        i
    } else {
        i + 1
    }
}

/// The path seen from the crate's root, when it starts with `self` or `super`.
fn resolved(segments: &[String], module: &[String]) -> Vec<String> {
    let ups = segments.iter().take_while(|s| *s == "super" || *s == "self").count();
    if ups == 0 {
        return segments.to_vec();
    }
    let levels = segments[..ups].iter().filter(|s| *s == "super").count();
    // `self` alone is a method's receiver.
    if levels == 0 && segments.len() == 1 {
        return segments.to_vec();
    }
    let base = &module[..module.len().saturating_sub(levels)];
    let rest = &segments[ups..];
    ["crate".to_owned()]
        .into_iter()
        .chain(base.iter().cloned())
        .chain(rest.iter().cloned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<String> {
        tokens(source).into_iter().map(|t| t.text).collect()
    }

    fn paths_of(source: &str, module: &[&str]) -> Vec<String> {
        let (kept, _) = without_tests(&tokens(source));
        let found = paths(&kept, module);
        found.iter().filter(|p| p.segments.len() > 1).map(|p| p.segments.join("::")).collect()
    }

    #[test]
    fn comments_strings_and_characters_are_no_code() {
        assert_eq!(words("a // b\n/* c /* d */ e */ f"), ["a", "f"]);
        assert_eq!(
            words(r##"x("crate::a \" b", r#"c "d" "#, b"e", c"f")"##).join(""),
            r#"x(",",",")"#
        );
        assert_eq!(
            words(r"let c: &'a str = 'x'; '\''; '\u{1F600}'; y"),
            ["let", "c", ":", "&", "str", "=", ";", ";", ";", "y"]
        );
        assert_eq!(words("r#type::b"), ["type", "::", "b"]);
        assert_eq!(tokens("\"\n\n\" a")[1].line, 3);
    }

    #[test]
    fn paths_are_found_in_uses_and_in_line() {
        assert_eq!(
            paths_of("use crate::{a::B, c::{self, d::*}}; pub use e::f as g;", &[]),
            ["crate::a::B", "crate::c", "crate::c::d::*", "e::f"]
        );
        assert_eq!(
            paths_of("fn f(x: crate::a::B) -> Vec<::c::D> { e::<f::G>(); x.h }", &[]),
            ["crate::a::B", "c::D", "f::G"]
        );
    }

    #[test]
    fn relative_paths_are_resolved() {
        assert_eq!(
            paths_of("use super::b::C; self::d();", &["feed", "hub"]),
            ["crate::feed::b::C", "crate::feed::hub::d"]
        );
        assert_eq!(
            paths_of("use super::super::b; mod x { use super::y; } super::z();", &["feed", "hub"]),
            ["crate::b", "crate::feed::hub::y", "crate::feed::z"]
        );
    }

    #[test]
    fn tests_are_left_out_and_named() {
        let source = "#[cfg(test)] mod a; #[cfg(test)] use b::{c, d}; #[cfg(unix)] use e::f;
            #[cfg(test)] #[allow(x)] mod tests { use g::h; } fn i() { j::k() }";
        assert_eq!(paths_of(source, &[]), ["e::f", "j::k"]);
        assert_eq!(without_tests(&tokens(source)).1, ["a"]);
    }
}
