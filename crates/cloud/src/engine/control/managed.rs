//! AWS's own job templates: the few that a rehearsal needs, in the form that AWS's device client understands.

use serde_json::{Value, json};

use super::Result;
use super::invalid;
use super::jobs::Parameters;

pub const VERSION: &str = "1.0";

pub struct ManagedTemplate {
    pub name: &'static str,
    pub description: &'static str,
    pub document: &'static str,
    parameters: &'static [Parameter],
}

pub struct Parameter {
    key: &'static str,
    description: &'static str,
    example: &'static str,
    optional: bool,
}

impl Parameter {
    const fn required(key: &'static str, description: &'static str, example: &'static str) -> Parameter {
        Parameter { key, description, example, optional: false }
    }

    const fn optional(key: &'static str, description: &'static str, example: &'static str) -> Parameter {
        Parameter { key, description, example, optional: true }
    }

    pub fn shown(&self) -> Value {
        json!({
            "key": self.key,
            "description": self.description,
            "regex": "[^\\p{C}]+",
            "example": self.example,
            "optional": self.optional,
        })
    }
}

/// Taken by every managed template.
const COMMON: &[Parameter] = &[
    Parameter::optional("runAsUser", "The user to run the handler as", "user1"),
    Parameter::optional("pathToHandler", "The folder of the handler", "/home/user/handlers"),
];
const SERVICES: &[Parameter] =
    &[Parameter::required("services", "The applications, separated by blanks", "ssh cron")];
const PACKAGES: &[Parameter] =
    &[Parameter::required("packages", "The packages, separated by blanks", "curl jq")];

macro_rules! handler_document {
    ($name:literal, $handler:literal, $args:literal) => {
        concat!(
            r#"{"version":"1.0","steps":[{"action":{"name":""#,
            $name,
            r#"","type":"runHandler","input":{"handler":""#,
            $handler,
            r#"","args":["#,
            $args,
            r#"],"path":"${aws:iot:parameter:pathToHandler}"},"runAsUser":"${aws:iot:parameter:runAsUser}"}}]}"#
        )
    };
}

/// By name.
pub const TEMPLATES: &[ManagedTemplate] = &[
    ManagedTemplate {
        name: "AWS-Download-File",
        description: "A managed job template for downloading a file",
        document: handler_document!(
            "Download-File",
            "download-file.sh",
            r#""${aws:iot:parameter:downloadUrl}","${aws:iot:parameter:filePath}""#
        ),
        parameters: &[
            Parameter::required("downloadUrl", "Where the file is", "http://www.example.com/files/a.txt"),
            Parameter::required("filePath", "Where the file goes on the device", "/home/user/downloads"),
        ],
    },
    ManagedTemplate {
        name: "AWS-Install-Application",
        description: "A managed job template for installing applications",
        document: handler_document!(
            "Install-Application",
            "install-packages.sh",
            r#""${aws:iot:parameter:packages}""#
        ),
        parameters: PACKAGES,
    },
    ManagedTemplate {
        name: "AWS-Reboot",
        description: "A managed job template for rebooting a device",
        document: handler_document!("Reboot", "reboot.sh", ""),
        parameters: &[],
    },
    ManagedTemplate {
        name: "AWS-Remove-Application",
        description: "A managed job template for removing applications",
        document: handler_document!(
            "Remove-Application",
            "remove-packages.sh",
            r#""${aws:iot:parameter:packages}""#
        ),
        parameters: PACKAGES,
    },
    ManagedTemplate {
        name: "AWS-Restart-Application",
        description: "A managed job template for restarting applications",
        document: handler_document!(
            "Restart-Application",
            "restart-services.sh",
            r#""${aws:iot:parameter:services}""#
        ),
        parameters: SERVICES,
    },
    ManagedTemplate {
        name: "AWS-Run-Command",
        description: "A managed job template for running a command",
        document: concat!(
            r#"{"version":"1.0","steps":[{"action":{"name":"Run-Command","type":"runCommand","#,
            r#""input":{"command":"${aws:iot:parameter:command}"},"runAsUser":"${aws:iot:parameter:runAsUser}"}}]}"#
        ),
        parameters: &[Parameter::required(
            "command",
            "The command, its words separated by commas",
            "echo,hello",
        )],
    },
    ManagedTemplate {
        name: "AWS-Start-Application",
        description: "A managed job template for starting applications",
        document: handler_document!(
            "Start-Application",
            "start-services.sh",
            r#""${aws:iot:parameter:services}""#
        ),
        parameters: SERVICES,
    },
    ManagedTemplate {
        name: "AWS-Stop-Application",
        description: "A managed job template for stopping applications",
        document: handler_document!(
            "Stop-Application",
            "stop-services.sh",
            r#""${aws:iot:parameter:services}""#
        ),
        parameters: SERVICES,
    },
];

impl ManagedTemplate {
    pub fn parameters(&self) -> impl Iterator<Item = &'static Parameter> {
        self.parameters.iter().chain(COMMON)
    }
}

fn arn(template: &ManagedTemplate, region: &str) -> String {
    format!("arn:aws:iot:{region}::jobtemplate/{}:{VERSION}", template.name)
}

pub fn summary(template: &ManagedTemplate, region: &str) -> Value {
    json!({
        "templateName": template.name,
        "templateArn": arn(template, region),
        "description": template.description,
        "environments": ["LINUX"],
        "templateVersion": VERSION,
    })
}

/// `arn:aws:iot:REGION::jobtemplate/NAME:VERSION`
pub fn of_arn(text: &str, region: &str) -> Option<&'static ManagedTemplate> {
    TEMPLATES.iter().find(|template| arn(template, region) == text)
}

/// The document with its parameters; what is optional and not given is empty.
pub fn fill(template: &ManagedTemplate, given: &Parameters) -> Result<String> {
    if let Some(unknown) =
        given.keys().find(|key| !template.parameters().any(|parameter| parameter.key == **key))
    {
        return Err(invalid(format!("{} has no parameter {unknown}", template.name)));
    }
    let mut document = template.document.to_owned();
    for parameter in template.parameters() {
        let value = match given.get(parameter.key) {
            Some(value) => value.as_str(),
            None if parameter.optional => "",
            None => return Err(invalid(format!("{} needs the parameter {}", template.name, parameter.key))),
        };
        let quoted = Value::from(value).to_string();
        let escaped = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default();
        document = document.replace(&format!("${{aws:iot:parameter:{}}}", parameter.key), escaped);
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_json_and_uses_its_parameters() {
        for template in TEMPLATES {
            serde_json::from_str::<Value>(template.document).unwrap();
            for parameter in template.parameters {
                assert!(
                    template.document.contains(&format!("parameter:{}}}", parameter.key)),
                    "{}",
                    template.name
                );
            }
        }
        assert!(TEMPLATES.is_sorted_by_key(|template| template.name));
    }

    #[test]
    fn values_are_escaped() {
        let run = TEMPLATES.iter().find(|template| template.name == "AWS-Run-Command").unwrap();
        let given = Parameters::from([("command".to_owned(), r#""say","\hello""#.to_owned())]);
        let document: Value = serde_json::from_str(&fill(run, &given).unwrap()).unwrap();
        assert_eq!(document["steps"][0]["action"]["input"]["command"], r#""say","\hello""#);
        assert_eq!(document["steps"][0]["action"]["runAsUser"], "");
        assert!(fill(run, &Parameters::new()).is_err());
        assert!(fill(run, &Parameters::from([("nope".to_owned(), String::new())])).is_err());
    }
}
