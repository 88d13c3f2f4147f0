r"""Campaigns: one simulator command as many shards, on the processes of a machine or of a cluster.

    python -m simulators.campaign wbf --theta-prior normal --events 1000000 --seed 1 \
        --shards 64 --workers local --out FOLDER

writes FOLDER/shard_0000.root ... and FOLDER/manifest.json.  Shard k has N / n events (the first
N mod n one more) and the seed

    seed_k = state(SeedSequence(seed).spawn(n)[k]) >> 11      (53 bits),

whatever the number of workers, so that the events are too.
"""

from simulators.campaign.digests import content_digest
from simulators.campaign.manifest import MANIFEST, Manifest, ShardRecord, read_manifest
from simulators.campaign.plan import Campaign, Shard
from simulators.campaign.running import CampaignResult, run_campaign
from simulators.campaign.workers import DaskWorkers, SerialWorkers, open_workers

__all__ = [
    "MANIFEST",
    "Campaign",
    "CampaignResult",
    "DaskWorkers",
    "Manifest",
    "SerialWorkers",
    "Shard",
    "ShardRecord",
    "content_digest",
    "open_workers",
    "read_manifest",
    "run_campaign",
]
