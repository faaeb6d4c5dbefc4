//! What the comments of the schema say, as Markdown.

use prost_reflect::{
    EnumDescriptor, FieldDescriptor, FileDescriptor, MessageDescriptor, MethodDescriptor,
    ServiceDescriptor,
};

/// How a comment begins that refers to a field of the same name in another message.
const REFERS: &str = "As in ";

pub(super) fn of_service(service: &ServiceDescriptor) -> String {
    comment(&service.parent_file(), service.path())
}

pub(super) fn of_method(method: &MethodDescriptor) -> String {
    comment(&method.parent_file(), method.path())
}

pub(super) fn of_message(message: &MessageDescriptor) -> String {
    comment(&message.parent_file(), message.path())
}

/// Of the enum, and below it of each value.
pub(super) fn of_enum(of: &EnumDescriptor) -> String {
    let file = of.parent_file();
    let values = of.values();
    let values = values.map(|it| format!("* `{}`: {}", it.name(), comment(&file, it.path())));
    let values = values.collect::<Vec<_>>().join("\n");
    format!("{}\n\n{values}", comment(&file, of.path()))
}

/// Of a field; what it refers to is said in its place.
pub(super) fn of_field(field: &FieldDescriptor) -> String {
    let own = comment(&field.parent_file(), field.path());
    referred(field, &own).unwrap_or(own)
}

fn referred(field: &FieldDescriptor, comment: &str) -> Option<String> {
    let rest = comment.strip_prefix(REFERS)?;
    let (message, rest) = rest.split_at(rest.find(|c: char| !c.is_alphanumeric())?);
    let package = field.parent_file().package_name().to_owned();
    let message = field.parent_pool().get_message_by_name(&format!("{package}.{message}"))?;
    let said = of_field(&message.get_field_by_name(field.name())?);
    Some(format!("{}{rest}", said.trim_end_matches('.')))
}

/// The first sentence of a comment, in one line and without its full stop.
pub(super) fn summary(comment: &str) -> String {
    let line = comment.split_whitespace().collect::<Vec<_>>().join(" ");
    let end = line.find(". ").unwrap_or(line.len());
    line[..end].trim_end_matches('.').to_owned()
}

/// The comment before what is at this path of a file.
fn comment(file: &FileDescriptor, path: &[i32]) -> String {
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let mut places = info.into_iter().flat_map(|info| &info.location);
    let comment = places.find(|place| place.path == path).map(|place| place.leading_comments());
    let lines = comment.unwrap_or_default().lines();
    lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Schema;

    #[test]
    fn a_reference_to_another_message_is_followed() {
        let schema = Schema::build(&[]).unwrap();
        let field = |method: &str, name: &str| {
            let method = schema.method(&format!("/game.v1.{method}")).unwrap();
            of_field(&method.input().get_field_by_name(name).unwrap())
        };
        let first = field("GameService/StartSession", "validate_only");
        assert!(first.starts_with("Checks everything and writes nothing"), "{first}");
        assert_eq!(field("GameService/PurchaseItem", "validate_only"), first);
        let cursor = field("EventFeedService/PollEvents", "after_cursor");
        assert!(cursor.starts_with("Behind what the caller has already seen"), "{cursor}");
        assert!(cursor.ends_with("; as a rule the cursor of the last response."), "{cursor}");
    }

    #[test]
    fn a_summary_is_one_sentence() {
        assert_eq!(summary("Buys one\nitem. Writes an\nevent."), "Buys one item");
        assert_eq!(summary("Who acts."), "Who acts");
        assert_eq!(summary(""), "");
    }
}
