#[derive(Debug, Default)]
pub struct Sessions;
