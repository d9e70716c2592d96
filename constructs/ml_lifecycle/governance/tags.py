"""LF-tags: what tables and columns are, said once, for grants to speak of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from aws_cdk import aws_lakeformation as lakeformation

from constructs import Construct
from ml_lifecycle.pseudo import ACCOUNT

#: Key of a tag -> its values. The first value is the open one.
TAGS: Final[Mapping[str, tuple[str, ...]]] = {
    "zone": ("raw", "curated", "features"),
    "classification": ("public", "internal", "confidential", "restricted"),
    "sensitivity": ("none", "protected", "pii"),
    "rows": ("all", "filtered"),
}


class LakeTags(Construct):
    """Define the LF-tags of one environment's lake.

    - ``<prefix>_zone`` of a database: raw, curated, features; its tables inherit it
    - ``<prefix>_classification`` of a table: public, internal, confidential, restricted
    - ``<prefix>_sensitivity`` of a table (none) and of its columns: none, protected, pii
    - ``<prefix>_rows`` of a table: all, or filtered when a persona sees some of its rows only

    An LF-tag belongs to an account and Region, hence the prefix. Who deploys must be a data lake
    administrator, which a governed `DataLake` sees to. An account may hold 1,000 LF-tags, a resource 50
    (Lake Formation, "Lake Formation tag-based access control best practices and considerations").
    """

    def __init__(self, scope: Construct, construct_id: str, *, prefix: str) -> None:
        super().__init__(scope, construct_id)
        self.prefix = prefix
        self._tags = {
            key: lakeformation.CfnTag(
                self, key.title(), catalog_id=ACCOUNT, tag_key=self.key(key), tag_values=list(values)
            )
            for key, values in TAGS.items()
        }

    def key(self, tag: str) -> str:
        """Return the key of ``tag`` (``"zone"``) in this environment."""
        if tag not in TAGS:
            raise ValueError(f"tag must be one of {', '.join(TAGS)}, got {tag!r}")
        return f"{self.prefix}_{tag}"

    def associate(
        self,
        scope: Construct,
        construct_id: str,
        *,
        resource: lakeformation.CfnTagAssociation.ResourceProperty,
        **values: str,
    ) -> lakeformation.CfnTagAssociation:
        """Tag ``resource`` with ``values``: ``zone="raw"``."""
        association = lakeformation.CfnTagAssociation(
            scope,
            construct_id,
            resource=resource,
            lf_tags=[
                lakeformation.CfnTagAssociation.LFTagPairProperty(
                    catalog_id=ACCOUNT, tag_key=self.key(tag), tag_values=[_known(tag, value)]
                )
                for tag, value in values.items()
            ],
        )
        association.node.add_dependency(*(self._tags[tag] for tag in values))
        return association

    def grant(
        self,
        scope: Construct,
        construct_id: str,
        *,
        principal: str,
        permissions: Sequence[str],
        resource_type: str,
        **values: Sequence[str],
    ) -> lakeformation.CfnPrincipalPermissions:
        """Grant ``permissions`` on every DATABASE or TABLE whose tags have one of ``values`` each."""
        name = lakeformation.CfnPrincipalPermissions
        grant = name(
            scope,
            construct_id,
            principal=name.DataLakePrincipalProperty(data_lake_principal_identifier=principal),
            resource=name.ResourceProperty(
                lf_tag_policy=name.LFTagPolicyResourceProperty(
                    catalog_id=ACCOUNT,
                    resource_type=resource_type,
                    expression=[
                        name.LFTagProperty(
                            tag_key=self.key(tag), tag_values=[_known(tag, value) for value in wanted]
                        )
                        for tag, wanted in values.items()
                    ],
                )
            ),
            permissions=list(permissions),
            permissions_with_grant_option=[],
        )
        grant.node.add_dependency(*(self._tags[tag] for tag in values))
        return grant


def _known(tag: str, value: str) -> str:
    if value not in TAGS[tag]:
        raise ValueError(f"{tag} must be one of {', '.join(TAGS[tag])}, got {value!r}")
    return value
