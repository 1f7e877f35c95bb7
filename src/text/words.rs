//! Text as words: lower case, without accents.

/// A word, or an emoji.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Lower case, no accents, no apostrophes.
    pub text: String,
    /// The first of a sentence.
    pub first: bool,
    /// Between quotation marks.
    pub quoted: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    pub words: Vec<Word>,
    pub question: bool,
}

/// Splits text into words.
pub fn split(text: &str) -> Words {
    let mut found = Words::default();
    let mut word = String::new();
    let (mut first, mut quoted) = (true, false);
    let mut push = |word: &mut String, first: &mut bool, quoted: bool| {
        if !word.is_empty() {
            found.words.push(Word {
                text: std::mem::take(word),
                first: *first,
                quoted,
            });
            *first = false;
        }
    };
    let text = faces(text);
    for c in text.chars() {
        match c {
            '\'' | '’' | '‘' | '`' | '´' | '\u{fe0f}' | '\u{200d}' => {}
            // Skin tones.
            '\u{1f3fb}'..='\u{1f3ff}' => {}
            '"' | '„' | '“' | '”' | '«' | '»' => {
                push(&mut word, &mut first, quoted);
                quoted = matches!(c, '„' | '«') || (matches!(c, '"' | '“') && !quoted);
            }
            '+' if word.is_empty() => word.push('+'),
            '%' if word.chars().all(|c| c.is_ascii_digit()) && !word.is_empty() => word.push('%'),
            c if c.is_alphanumeric() => {
                if word.chars().count() < 40 {
                    // Spanish `sí` is yes, `si` is if.
                    if c == 'í' || c == 'Í' {
                        word.push('í');
                    } else {
                        word.extend(fold(c));
                    }
                }
            }
            '?' | '¿' | '؟' => {
                push(&mut word, &mut first, quoted);
                found.question = true;
                first = true;
            }
            '.' | '!' | ',' | ';' | ':' | '\n' | '(' | ')' | '–' | '—' | '¡' | '•' | '*' | '…' =>
            {
                push(&mut word, &mut first, quoted);
                first = true;
            }
            c if is_sign(c) => {
                push(&mut word, &mut first, quoted);
                word.push(c);
                push(&mut word, &mut first, quoted);
            }
            c if c.is_whitespace() || "-/_&|#@[]{}".contains(c) => {
                push(&mut word, &mut first, quoted);
            }
            // Whatever else it is: a word nobody knows.
            c => {
                push(&mut word, &mut first, quoted);
                word.push(c);
                push(&mut word, &mut first, quoted);
            }
        }
    }
    push(&mut word, &mut first, quoted);
    for word in &mut found.words {
        let yes = word.text == "sí";
        word.text = word.text.replace('í', "i");
        if yes {
            word.text = "si!".into();
        }
    }
    found.words.retain(|w| w.text != "+");
    found
}

/// Faces made of punctuation as emoji, and a lone hyphen as a dash.
fn faces(text: &str) -> String {
    const FACES: [(&str, &str); 14] = [
        (" - ", " – "),
        (":)", "🙂"),
        (":-)", "🙂"),
        ("=)", "🙂"),
        (":D", "🙂"),
        (":-D", "🙂"),
        (":(", "🙁"),
        (":-(", "🙁"),
        (":'(", "🙁"),
        (":/", "🙁"),
        (":-/", "🙁"),
        (":\\", "🙁"),
        (":|", "🙁"),
        (";)", "😜"),
    ];
    let mut text = text.to_string();
    for (face, emoji) in FACES {
        if text.contains(face) {
            text = text.replace(face, emoji);
        }
    }
    text
}

fn is_sign(c: char) -> bool {
    matches!(c, '\u{2190}'..='\u{2bff}' | '\u{1f000}'..='\u{1faff}')
}

/// A letter in lower case without accents.
pub fn fold(c: char) -> Vec<char> {
    let plain = match c.to_lowercase().next().unwrap_or(c) {
        'à'..='å' => "a",
        'æ' => "ae",
        'ç' => "c",
        'è'..='ë' => "e",
        'ì'..='ï' => "i",
        'ñ' => "n",
        'ò'..='ö' | 'ø' => "o",
        'œ' => "oe",
        'ß' => "ss",
        'ù'..='ü' => "u",
        'ý' | 'ÿ' => "y",
        other => return vec![other],
    };
    plain.chars().collect()
}
