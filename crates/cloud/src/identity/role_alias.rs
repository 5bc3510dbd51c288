//! Role aliases: what a device's certificate can be exchanged for at the credential provider.

use serde_json::{Value, json};

use super::api::{Call, already_exists, api, invalid};
use super::registry::Registry;
use crate::engine::ApiError;

pub(super) const ROLE_ALIAS: &str = "identity.role-alias";
const DEFAULT_SECONDS: u64 = 3600;

impl Call<'_> {
    pub(super) fn role_alias(&self, op: &str, registry: &mut Registry) -> Option<Result<Value, ApiError>> {
        Some(match op {
            "CreateRoleAlias" => self.create_role_alias(registry),
            "UpdateRoleAlias" => self.update_role_alias(registry),
            "DescribeRoleAlias" => {
                self.find_role_alias(registry).map(|found| json!({"roleAliasDescription": found}))
            }
            "DeleteRoleAlias" => self.delete_role_alias(registry),
            "ListRoleAliases" => {
                let names: Vec<_> = registry.all(ROLE_ALIAS).map(|(name, _)| name).collect();
                Ok(json!({"roleAliases": names}))
            }
            _ => return None,
        })
    }

    fn create_role_alias(&self, registry: &mut Registry) -> Result<Value, ApiError> {
        let name = self.required("roleAlias")?;
        let arn = format!("arn:aws:iot:{}:{}:rolealias/{name}", self.region, self.account);
        if registry.get(ROLE_ALIAS, name).is_some() {
            return Err(already_exists(format!("Role alias {name} already exists"), name, &arn));
        }
        let alias = json!({
            "roleAlias": name,
            "roleAliasArn": arn,
            "roleArn": self.required("roleArn")?,
            "owner": self.account,
            "credentialDurationSeconds": self.duration()?.unwrap_or(DEFAULT_SECONDS),
            "creationDate": self.now,
            "lastModifiedDate": self.now,
        });
        registry.put(ROLE_ALIAS, name, alias);
        Ok(json!({"roleAlias": name, "roleAliasArn": arn}))
    }

    fn update_role_alias(&self, registry: &mut Registry) -> Result<Value, ApiError> {
        let mut alias = self.find_role_alias(registry)?.clone();
        let role = self.body.get("roleArn").cloned();
        let seconds = self.duration()?.map(Value::from);
        let changes = [
            ("roleArn", role),
            ("credentialDurationSeconds", seconds),
            ("lastModifiedDate", Some(self.now.into())),
        ];
        for (member, value) in changes {
            if let (Some(members), Some(value)) = (alias.as_object_mut(), value) {
                members.insert(member.to_owned(), value);
            }
        }
        let answer = json!({"roleAlias": alias.get("roleAlias"), "roleAliasArn": alias.get("roleAliasArn")});
        registry.put(ROLE_ALIAS, self.required("roleAlias")?, alias);
        Ok(answer)
    }

    fn delete_role_alias(&self, registry: &mut Registry) -> Result<Value, ApiError> {
        self.find_role_alias(registry)?;
        registry.remove(ROLE_ALIAS, self.required("roleAlias")?);
        Ok(json!({}))
    }

    fn duration(&self) -> Result<Option<u64>, ApiError> {
        match self.body.get("credentialDurationSeconds") {
            None => Ok(None),
            Some(seconds) => match seconds.as_u64().filter(|seconds| (900..=43_200).contains(seconds)) {
                Some(seconds) => Ok(Some(seconds)),
                None => Err(invalid("credentialDurationSeconds must be 900 to 43200".to_owned())),
            },
        }
    }

    fn find_role_alias<'r>(&self, registry: &'r Registry) -> Result<&'r Value, ApiError> {
        let name = self.required("roleAlias")?;
        let missing = || api(404, "ResourceNotFoundException", format!("Role alias {name} not found"));
        registry.get(ROLE_ALIAS, name).ok_or_else(missing)
    }
}
