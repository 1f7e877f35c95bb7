//! A ticket's text as words, as a language model reads it: letters that only look different are
//! the same, nothing hides between letters, and nothing is left out. One pass, linear.

use crate::text::invisible::is_invisible;
use crate::text::words::fold;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Positions between the parts of a ticket: they have nothing to do with each other.
const APART: usize = 100;
/// Sentences within so many words refer to each other: "I forgot my password. Can you reset it?"
const SHORT: usize = 24;
/// The longest word, in bytes; the rest of a longer one is an ending.
const MAX_WORD: usize = 40;
/// So many letters in a row that stand alone are a word: "p.a.s.s.w.o.r.d".
const SPELT: usize = 3;
const MAX_SPELT: usize = 24;
/// So many letters of other scripts in a sentence, and nobody can tell what it asks for.
const UNREADABLE: usize = 2;

/// What characters are read as that nobody sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Invisible {
    Nothing,
    Blank,
}

#[derive(Debug)]
pub(super) struct Word {
    /// Lower case, Latin letters without accents.
    pub text: String,
    /// Counts up. Words that begin at different letters of a spelt word share it.
    pub at: usize,
    /// Index of its sentence.
    pub sentence: usize,
    /// A sign like a comma stands before it.
    pub apart: bool,
}

/// What a text says.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub words: Vec<Word>,
    /// First position of each sentence, and the one after it.
    pub sentences: Vec<(usize, usize)>,
    /// The position after the subject, which is the first sentence; none: it is empty.
    pub head: Option<usize>,
    /// The position after the details.
    pub body: usize,
    /// A word of a sentence in another script.
    pub unreadable: Option<String>,
}

impl Reading {
    /// Reads a subject, details, and further texts.
    pub fn new(subject: &str, details: &str, others: &[&str], invisible: Invisible) -> Self {
        let mut reader = Reader {
            invisible,
            read: Reading::default(),
            word: String::new(),
            apart: false,
            at: 0,
            began: 0,
            alone: Vec::new(),
            over: false,
            foreign: 0,
            is_foreign: false,
            example: None,
        };
        reader.part(subject, true);
        reader.read.head = (reader.at > 0).then_some(reader.at);
        reader.leave();
        reader.part(details, false);
        reader.read.body = reader.at;
        for other in others {
            reader.leave();
            reader.part(other, false);
        }
        reader.read
    }

    /// Whether two sentences are one, or so short that they refer to each other.
    pub fn related(&self, one: usize, other: usize) -> bool {
        let (first, last) = (one.min(other), one.max(other));
        first == last || self.sentences[last].1 - self.sentences[first].0 <= SHORT
    }
}

/// Text as it is searched for keywords: lower case, nothing invisible, no accents.
pub(super) fn folded(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in letters(text, Invisible::Nothing) {
        push(&mut folded, look_alike(c));
    }
    folded
}

struct Reader {
    invisible: Invisible,
    read: Reading,
    word: String,
    /// A sign was read since the last word.
    apart: bool,
    at: usize,
    /// Where the sentence began.
    began: usize,
    /// Letters that stand alone, and whether a sign is before each.
    alone: Vec<(String, bool)>,
    /// The sentence ends unless another such letter follows.
    over: bool,
    /// Letters of other scripts in the sentence.
    foreign: usize,
    /// The word has one.
    is_foreign: bool,
    /// The first such word.
    example: Option<String>,
}

impl Reader {
    fn part(&mut self, text: &str, is_one_sentence: bool) {
        for c in letters(text, self.invisible) {
            if c.is_alphanumeric() {
                self.letter(c);
                continue;
            }
            self.end_word();
            self.apart |= !joins(c);
            if !is_one_sentence && matches!(c, '.' | '!' | '?' | '\n' | ';') {
                self.end_sentence();
            }
        }
        self.end_sentence();
        self.spell();
    }

    /// Leaves a gap between two parts.
    fn leave(&mut self) {
        self.at += APART;
        self.began = self.at;
        self.apart = true;
    }

    fn letter(&mut self, c: char) {
        if c.is_alphabetic() && !is_latin(c) {
            self.foreign += 1;
            self.is_foreign = true;
        }
        if self.word.len() < MAX_WORD {
            push(&mut self.word, look_alike(c));
        }
    }

    fn end_word(&mut self) {
        if self.word.is_empty() {
            return;
        }
        let word = std::mem::take(&mut self.word);
        let apart = std::mem::take(&mut self.apart);
        if std::mem::take(&mut self.is_foreign) && self.example.is_none() {
            self.example = Some(word.clone());
        }
        let mut letters = word.chars();
        let first = letters.next();
        if first.is_some_and(char::is_alphabetic) && letters.next().is_none() {
            self.alone.push((word, apart));
            return;
        }
        self.spell();
        self.push(word, apart);
        self.at += 1;
    }

    fn end_sentence(&mut self) {
        self.end_word();
        // A spelt word may go on: the dots may be between its letters.
        if self.alone.is_empty() {
            self.close();
        } else {
            self.over = true;
        }
    }

    /// Reads letters that stand alone, if there are enough of them, as one word. It may begin at
    /// any of them.
    fn spell(&mut self) {
        let alone = std::mem::take(&mut self.alone);
        if alone.len() < SPELT {
            for (letter, apart) in alone {
                self.push(letter, apart);
                self.at += 1;
            }
        } else {
            for from in 0..=alone.len() - SPELT {
                let letters = alone[from..].iter().take(MAX_SPELT);
                let word = letters.map(|(letter, _)| letter.as_str()).collect();
                self.push(word, from > 0 || alone[0].1);
            }
            self.at += 1;
        }
        if std::mem::take(&mut self.over) {
            self.close();
        }
    }

    fn push(&mut self, text: String, apart: bool) {
        self.read.words.push(Word {
            text,
            at: self.at,
            sentence: self.read.sentences.len(),
            apart,
        });
    }

    fn close(&mut self) {
        let example = self.example.take();
        if self.foreign >= UNREADABLE && self.read.unreadable.is_none() {
            self.read.unreadable = example;
        }
        self.foreign = 0;
        if self.at > self.began {
            self.read.sentences.push((self.began, self.at));
            self.began = self.at;
        }
    }
}

/// A text's characters without accents and invisible ones, in their plainest form.
fn letters(text: &str, invisible: Invisible) -> impl Iterator<Item = char> {
    text.chars()
        .filter(|c| !is_combining_mark(*c))
        .filter_map(move |c| shown(c, invisible))
        .nfkd()
        .filter(|c| !is_combining_mark(*c) && *c != '\'')
}

/// A character as it looks; none: it does not separate the letters around it.
fn shown(c: char, invisible: Invisible) -> Option<char> {
    match c {
        '\'' | '’' | '‘' | '`' | '´' | 'ʼ' | '′' => None,
        '\u{2028}' | '\u{2029}' => Some('\n'),
        // Blank, but not white space.
        '…' | '\u{115f}' | '\u{1160}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}' => Some(' '),
        // Letters in a circle, in a square, and as flags.
        '\u{1f150}'..='\u{1f169}' => nth(c, 0x1f150),
        '\u{1f170}'..='\u{1f189}' => nth(c, 0x1f170),
        '\u{1f1e6}'..='\u{1f1ff}' => nth(c, 0x1f1e6),
        c if !is_invisible(c) => Some(c),
        _ if invisible == Invisible::Nothing => None,
        // Tags: ASCII that only a program reads.
        '\u{e0020}'..='\u{e007e}' => char::from_u32(u32::from(c) - 0xe0000),
        _ => Some(' '),
    }
}

/// The letter of the alphabet that a sign is, of those that begin at `first`.
fn nth(c: char, first: u32) -> Option<char> {
    char::from_u32(u32::from('a') + u32::from(c).saturating_sub(first))
}

/// Whether words on both sides belong together.
fn joins(c: char) -> bool {
    (c.is_whitespace() && c != '\n') || matches!(c, '-' | '/' | '_' | '*' | '"' | '“' | '”' | '„')
}

fn push(word: &mut String, c: char) {
    if c.is_ascii() {
        word.push(c.to_ascii_lowercase());
    } else {
        word.extend(fold(c));
    }
}

/// The signs for micro and ohm count as Latin.
fn is_latin(c: char) -> bool {
    c.is_ascii()
        || matches!(c, '\u{3bc}' | '\u{3a9}')
        || matches!(c,
            '\u{aa}' | '\u{ba}' | '\u{c0}'..='\u{2ff}' | '\u{1d00}'..='\u{1dbf}'
            | '\u{1e00}'..='\u{1eff}' | '\u{2c60}'..='\u{2c7f}' | '\u{a720}'..='\u{a7ff}'
            | '\u{ab30}'..='\u{ab6f}')
}

/// The Latin letter that a letter looks like. Two of them in a sentence make it unreadable anyway.
fn look_alike(c: char) -> char {
    match c {
        'а' | 'А' | 'α' | 'Α' | 'ɑ' | 'ᴀ' => 'a',
        'в' | 'В' | 'β' | 'Β' | 'ʙ' => 'b',
        'с' | 'С' | 'ϲ' | 'ᴄ' => 'c',
        'ԁ' | 'ᴅ' | 'đ' => 'd',
        'е' | 'Е' | 'ε' | 'Ε' | 'ᴇ' => 'e',
        'ғ' | 'ꜰ' => 'f',
        'ɡ' | 'ց' | 'ɢ' => 'g',
        'һ' | 'Н' | 'н' | 'Η' | 'հ' | 'ʜ' | 'ħ' => 'h',
        'і' | 'І' | 'ι' | 'Ι' | 'ı' | 'ɩ' | 'ɪ' => 'i',
        'ј' | 'Ј' | 'ϳ' | 'ᴊ' => 'j',
        'к' | 'К' | 'κ' | 'Κ' | 'ᴋ' => 'k',
        'ӏ' | 'Ӏ' | 'ł' | 'ʟ' => 'l',
        'м' | 'М' | 'Μ' | 'ᴍ' => 'm',
        'η' | 'Ν' | 'ո' | 'п' | 'ɴ' => 'n',
        'о' | 'О' | 'ο' | 'Ο' | 'σ' | 'օ' | 'ᴏ' => 'o',
        'р' | 'Р' | 'ρ' | 'Ρ' | 'ᴘ' => 'p',
        'ԛ' => 'q',
        'г' | 'ʀ' => 'r',
        'ѕ' | 'Ѕ' | 'ꜱ' => 's',
        'т' | 'Т' | 'τ' | 'Τ' | 'ᴛ' | 'ŧ' => 't',
        'υ' | 'ս' | 'μ' | 'ᴜ' => 'u',
        'ν' | 'ѵ' | 'ᴠ' => 'v',
        'ԝ' | 'ω' | 'ш' | 'ᴡ' => 'w',
        'х' | 'Х' | 'χ' | 'Χ' => 'x',
        'у' | 'У' | 'γ' | 'Υ' | 'ʏ' => 'y',
        'Ζ' | 'ᴢ' => 'z',
        c => c,
    }
}
