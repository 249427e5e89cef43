"""A schema in which all that is hard to encode meets: tags, sets, optional records, dates, decimals, hierarchies."""

from __future__ import annotations

from typing import Final

__all__ = ["NASTY"]

NASTY: Final = """
namespace N {
  entity Colour enum ["red", "green", "blue"];
  entity Group in [Group];
  entity Team in [Group];
  entity User in [Team, Group] {
    age: Long, name: String, nick?: String, boss: User, colour: Colour, from?: ipaddr, score: decimal, joined: datetime,
    teams: Set<Team>, numbers: Set<Long>, profile: { city?: String, zip: Long, more?: { flag: Bool, score?: decimal } }
  } tags String;
  entity Folder in [Folder];
  entity File in [Folder, Group] {
    owner: User, readers: Set<User>, names?: Set<String>, size: Long, keep?: duration, at: datetime, network: ipaddr,
    points: Set<{ x: Long, y?: String }>, hidden?: Bool
  } tags Set<Long>;
  entity Note { size: Long, owner?: Group } tags ipaddr;
  action all;
  action reads in [all];
  action view, edit in [reads] appliesTo {
    principal: [User], resource: [File, Note],
    context: {
      at: datetime, span: duration, ip: ipaddr, other?: ipaddr, n: Long, m?: Long, s: String, t?: String, ok: Bool,
      price: decimal, groups: Set<Group>, words: Set<String>, nets?: Set<ipaddr>, colours: Set<Colour>,
      inner: { deep: { n?: Long, s: String }, user?: User, set: Set<Long> }
    }
  };
}
"""
"""In Cedar's own syntax."""
