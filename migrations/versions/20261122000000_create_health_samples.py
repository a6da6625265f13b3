from migrations.revision import load

__doc__, revision, down_revision, upgrade, downgrade = load(__file__)
