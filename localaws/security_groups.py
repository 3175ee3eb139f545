"""Rules of security groups that name a prefix list, such as S3's behind its gateway endpoint: ministack drops it."""

import re
from collections.abc import Mapping
from typing import Any


def install() -> None:
    """Keep prefix lists of rules, and show them."""
    from ministack.services import ec2

    parse, show = ec2._parse_ip_permissions, ec2._sg_rule_xml

    def with_prefix_lists(parameters: Mapping[str, Any], prefix: str) -> Any:
        rules = parse(parameters, prefix)
        for number, rule in enumerate(rules, 1):
            path = re.compile(rf"{re.escape(prefix)}\.{number}\.PrefixListIds\.(\d+)\.PrefixListId")
            for name in sorted(parameters):
                if found := path.fullmatch(name):
                    description = ec2._p(parameters, f"{prefix}.{number}.PrefixListIds.{found[1]}.Description")
                    entry = {"PrefixListId": ec2._p(parameters, name)}
                    rule["PrefixListIds"].append(entry | ({"Description": description} if description else {}))
        return rules

    def shown(group: str, rule: Mapping[str, Any], is_egress: bool = False) -> str:
        """As ministack shows a rule of nothing but ports, with the list in it; EC2 gives a rule one kind of peer."""
        text = str(show(group, rule, is_egress=is_egress))
        lists = [each["PrefixListId"] for each in rule.get("PrefixListIds", [])]
        if not lists:
            return text
        description = rule["PrefixListIds"][0].get("Description", "")
        more = f"<prefixListId>{lists[0]}</prefixListId>"
        if description and "<description>" not in text:
            more += f"<description>{ec2._esc(description)}</description>"
        return text.replace("</toPort>", f"</toPort>{more}", 1)

    ec2._parse_ip_permissions, ec2._sg_rule_xml = with_prefix_lists, shown
