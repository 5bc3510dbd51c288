//! Job templates, and the sources of a job's document.

use std::ops::Bound;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::jobs::{Parameters, check_tags, package_versions};
use super::managed::{self, ManagedTemplate};
use super::page::Page;
use super::{Result, empty, invalid, merged, put};
use crate::engine::Engine;
use crate::engine::config::JobConfig;
use crate::engine::interface::{ApiError, Time};
use crate::engine::placeholders;
use crate::engine::schedule::{SchedulingConfig, Window};
use crate::engine::store::Row;
use crate::engine::validate::{ARN, DESCRIPTION, Input, JOB_ID, Text, broken};

const MOST_DOCUMENT_BYTES: usize = 32768;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Template {
    pub id: String,
    pub description: String,
    pub document: String,
    pub document_source: Option<String>,
    pub created_at: Time,
    pub config: JobConfig,
    pub windows: Vec<Window>,
    pub packages: Vec<String>,
}

/// What a job gets from where its document comes from.
#[derive(Clone, Debug, Default)]
pub struct Source {
    pub document: String,
    pub raw_document: Option<String>,
    pub document_source: Option<String>,
    pub description: Option<String>,
    pub config: JobConfig,
    pub windows: Vec<Window>,
    pub parameters: Parameters,
    pub template_arn: Option<String>,
    pub packages: Vec<String>,
}

impl Source {
    pub fn windows_only(&self) -> Option<SchedulingConfig> {
        let windows = self.windows.clone();
        (!windows.is_empty())
            .then(|| SchedulingConfig { maintenance_windows: windows, ..SchedulingConfig::default() })
    }
}

fn template_id(input: &Input) -> Result<String> {
    Ok(input.need("jobTemplateId", input.text("jobTemplateId", &JOB_ID)?)?)
}

impl Engine {
    fn template(&self, id: &str) -> Result<&Template> {
        self.templates
            .get(id)
            .ok_or_else(|| ApiError::not_found(format!("Job template {id} cannot be found")))
    }

    fn template_arn(&self, id: &str) -> String {
        self.arn(&format!("jobtemplate/{id}"))
    }

    /// `document`, or what `documentSource` points to: read once, here.
    pub(super) fn read_document(&self, input: &Input) -> Result<(String, Option<String>)> {
        let source = input.text("documentSource", &Text::any(1..=1350))?;
        let document = match &source {
            None => input.need("document", input.text("document", &Text::any(0..=usize::MAX))?)?,
            Some(url) => {
                let unreadable = || invalid(format!("The job document cannot be read from {url}"));
                let object = placeholders::s3_object(url).ok_or_else(unreadable)?;
                let bytes = self.objects.read(&object.bucket, &object.key).ok_or_else(unreadable)?;
                String::from_utf8(bytes).map_err(|_| invalid("The job document is not UTF-8"))?
            }
        };
        self.check_document(&document)?;
        Ok((document, source))
    }

    fn check_document(&self, document: &str) -> Result<()> {
        if document.len() > MOST_DOCUMENT_BYTES {
            let shown = format!("{} bytes", document.len());
            let rule = format!("have length less than or equal to {MOST_DOCUMENT_BYTES}");
            return Err(broken("document", &shown, &rule).into());
        }
        if self.settings.compat.require_json_document.on()
            && let Err(error) = serde_json::from_str::<Value>(document)
        {
            return Err(invalid(format!("The job document is not valid JSON: {error}")));
        }
        let strict = self.settings.compat.reject_unknown_placeholders.on();
        placeholders::check(&placeholders::parse(document), strict).map_err(invalid)
    }

    /// A job's source when it is made from a template, ours or AWS's.
    pub(super) fn template_source(&self, arn: &str, parameters: Parameters) -> Result<Source> {
        let template_arn = Some(arn.to_owned());
        if let Some(template) = managed::of_arn(arn, &self.settings.region) {
            let document = managed::fill(template, &parameters)?;
            self.check_document(&document)?;
            let raw_document = Some(template.document.to_owned());
            return Ok(Source { document, raw_document, parameters, template_arn, ..Source::default() });
        }
        let id = self.own_resource(arn).and_then(|resource| resource.strip_prefix("jobtemplate/"));
        let missing = || ApiError::not_found(format!("Job template {arn} cannot be found"));
        let template = id.and_then(|id| self.templates.get(id)).ok_or_else(missing)?.clone();
        if !parameters.is_empty() {
            return Err(invalid("documentParameters can be used with AWS managed job templates only"));
        }
        Ok(Source {
            document: template.document,
            document_source: template.document_source,
            description: Some(template.description),
            config: template.config,
            windows: template.windows,
            packages: template.packages,
            template_arn,
            ..Source::default()
        })
    }

    pub(super) fn create_template(&mut self, now: Time, input: &Input) -> Result {
        let id = template_id(input)?;
        let description = input.need("description", input.text("description", &DESCRIPTION)?)?;
        let config = JobConfig::parse(input, &self.settings.compat)?;
        let windows = Window::parse_list(input)?;
        let packages = package_versions(input)?;
        check_tags(input)?;
        let sources = ["document", "documentSource", "jobArn"].iter().filter(|name| input.has(name)).count();
        if sources != 1 {
            return Err(invalid("A job template takes one of document, documentSource and jobArn"));
        }
        let template = match input.text("jobArn", &ARN)? {
            Some(arn) => {
                let job_id = self.own_resource(&arn).and_then(|resource| resource.strip_prefix("job/"));
                let job = self.job(job_id.unwrap_or(&arn))?;
                Template {
                    id: id.clone(),
                    description,
                    document: job.document.clone(),
                    document_source: job.document_source.clone(),
                    created_at: now,
                    config: config.or(job.config.clone()),
                    windows,
                    packages: packages.unwrap_or_else(|| job.packages.clone()),
                }
            }
            None => {
                let (document, document_source) = self.read_document(input)?;
                let packages = packages.unwrap_or_default();
                Template {
                    id: id.clone(),
                    description,
                    document,
                    document_source,
                    created_at: now,
                    config,
                    windows,
                    packages,
                }
            }
        };
        template.config.check()?;
        if self.templates.contains_key(&id) {
            return Err(ApiError::conflict(format!("Job template {id} already exists"), &id));
        }
        self.templates.insert(id.clone(), template);
        self.dirty.note(|| Row::Template(id.clone()));
        Ok(json!({"jobTemplateArn": self.template_arn(&id), "jobTemplateId": id}))
    }

    pub(super) fn describe_template(&self, input: &Input) -> Result {
        let template = self.template(&template_id(input)?)?;
        let mut answer = merged(
            json!({
                "jobTemplateArn": self.template_arn(&template.id),
                "jobTemplateId": template.id,
                "description": template.description,
                "document": template.document,
                "createdAt": template.created_at.to_number(),
            }),
            serde_json::to_value(&template.config).unwrap_or_default(),
        );
        put(&mut answer, "documentSource", template.document_source.clone());
        put(
            &mut answer,
            "maintenanceWindows",
            (!template.windows.is_empty()).then(|| json!(template.windows)),
        );
        put(
            &mut answer,
            "destinationPackageVersions",
            (!template.packages.is_empty()).then(|| json!(template.packages)),
        );
        Ok(answer.into())
    }

    pub(super) fn list_templates(&self, input: &Input) -> Result {
        let page = Page::of(input, "ListJobTemplates")?;
        let from = page.after().map_or(Bound::Unbounded, Bound::Excluded);
        let entries = self.templates.range::<str, _>((from, Bound::Unbounded)).map(|(id, template)| {
            let shown = json!({
                "jobTemplateArn": self.template_arn(id),
                "jobTemplateId": id,
                "description": template.description,
                "createdAt": template.created_at.to_number(),
            });
            (id.clone(), shown)
        });
        let (templates, token) = page.take(entries);
        let mut answer = merged(json!({"jobTemplates": templates}), empty());
        put(&mut answer, "nextToken", token);
        Ok(answer.into())
    }

    pub(super) fn delete_template(&mut self, input: &Input) -> Result {
        let id = template_id(input)?;
        self.template(&id)?;
        self.templates.remove(&id);
        self.dirty.note(|| Row::Template(id));
        Ok(empty())
    }

    pub(super) fn list_managed_templates(&self, input: &Input) -> Result {
        let page = Page::of(input, "ListManagedJobTemplates")?;
        let name = input.text("templateName", &Text::any(1..=64))?;
        let wanted = |template: &&ManagedTemplate| {
            name.as_ref().is_none_or(|name| template.name == name)
                && page.after().is_none_or(|after| template.name > after)
        };
        let entries = managed::TEMPLATES.iter().filter(wanted).map(|template| {
            let shown = merged(managed::summary(template, &self.settings.region), empty());
            (template.name.to_owned(), shown)
        });
        let (templates, token) = page.take(entries);
        let mut answer = merged(json!({"managedJobTemplates": templates}), empty());
        put(&mut answer, "nextToken", token);
        Ok(answer.into())
    }

    pub(super) fn describe_managed_template(&self, input: &Input) -> Result {
        let name = input.need("templateName", input.text("templateName", &Text::any(1..=64))?)?;
        let version = input.text("templateVersion", &Text::any(1..=8))?;
        let found = managed::TEMPLATES
            .iter()
            .find(|t| t.name == name && version.as_ref().is_none_or(|version| version == managed::VERSION));
        let template =
            found.ok_or_else(|| ApiError::not_found(format!("Managed template {name} cannot be found")))?;
        let parameters: Vec<Value> = template.parameters().map(|parameter| parameter.shown()).collect();
        let more = json!({"documentParameters": parameters, "document": template.document});
        Ok(merged(managed::summary(template, &self.settings.region), more).into())
    }
}
