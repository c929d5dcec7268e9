"""Forwards to `components.reward.scoring`: versions registered by earlier releases import from here."""
