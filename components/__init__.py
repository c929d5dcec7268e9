"""OnlineVPO: online video preference optimisation, one package per step."""
